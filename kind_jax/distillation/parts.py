"""What features are compared by, one function a method. B: samples, D: features of a network, K: classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kind_jax import losses
from kind_jax.classifying.network import Outputs
from kind_jax.distillation import memory, projectors
from kind_jax.distillation.config import DistilConfig, Method
from kind_jax.partition import MEMORY, PROJECTORS, Collections

Head = Callable[[Float[Array, "B D"]], Float[Array, "B K"]]


class Found(NamedTuple):
    """Parts of a loss.

    Attributes:
      embedding, regression: before they are weighted; see :class:`kind_jax.distillation.config.Weights`.
      metrics: figures to log.
      moved: the memory afterwards, where there is one.
    """

    embedding: Float[Array, ""]
    regression: Float[Array, ""]
    metrics: dict[str, Float[Array, ""]]
    moved: Mapping[str, Any]


def align_uniform(
    settings: DistilConfig, collections: Collections, drawn: Any, mine: Float[Array, "B D"], theirs: Outputs, head: Head
) -> Found:
    """Alignment across the networks, and uniformity within each (Farhat & Chen 2024)."""
    del drawn, head
    u, v = _projected(collections, mine, theirs)
    align = losses.align(u, v, settings.alpha)
    student, teacher = losses.uniform(u, settings.t), losses.uniform(v, settings.t)
    found = settings.align * align + settings.uniform * (student + teacher) / 2
    metrics = {"align": align, "uniform_student": student, "uniform_teacher": teacher}
    return Found(found, jnp.float32(0), metrics, {})


def crd(
    settings: DistilConfig, collections: Collections, drawn: Any, mine: Float[Array, "B D"], theirs: Outputs, head: Head
) -> Found:
    """Contrastive representation distillation (Tian et al. 2020)."""
    del head
    u, v = _projected(collections, mine, theirs)
    found = memory.look(
        collections[MEMORY], u, v, drawn.slot, drawn.negatives,
        temperature=settings.crd_temperature, momentum=settings.momentum,
    )  # fmt: skip
    return Found(found.loss, jnp.float32(0), {"crd": found.loss}, {MEMORY: found.memory})


def srrl(
    settings: DistilConfig, collections: Collections, drawn: Any, mine: Float[Array, "B D"], theirs: Outputs, head: Head
) -> Found:
    """Softmax regression representation learning (Yang et al. 2021).

    The student's features, led to the teacher's width, are compared with the teacher's, and so are the logits that the
    teacher's head gives to both.
    """
    del settings, drawn
    led = projectors.apply(collections[PROJECTORS]["connector"], mine, rectified=True)
    possible = jnp.isfinite(theirs.logits)  # a gated teacher's logits of other superclasses are not
    features = losses.feature(led, theirs.features)
    logits = losses.feature(jnp.where(possible, head(led), 0.0), jnp.where(possible, theirs.logits, 0.0))
    return Found(features, logits, {"features": features, "regression": logits}, {})


def _projected(
    collections: Collections, mine: Float[Array, "B D"], theirs: Outputs
) -> tuple[Float[Array, "B P"], Float[Array, "B P"]]:
    """Unit vectors of either network."""
    trees, features = collections[PROJECTORS], (mine, jax.lax.stop_gradient(theirs.features))
    u, v = (projectors.apply(trees[side], x) for side, x in zip(memory.SIDES, features, strict=True))
    return losses.normalised(u), losses.normalised(v)


PARTS: Mapping[Method, Callable[..., Found]] = {"align_uniform": align_uniform, "crd": crd, "srrl": srrl}
