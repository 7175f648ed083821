"""Model Guidance: the target of training is guided (Tang et al. 2025, arXiv 2502.12154, equations 10 and 11).

    target' = target + (scale - 1) sg( average(x_t, t, c) - average(x_t, t, null) )

sg lets no gradient through, ``average`` is the model with the moving average of its weights. A sample that is trained
as the null class keeps its target. In a KIND model, the null class is what ``model.null_gate`` says, so that guidance
is what the class's tailors (and its label embedding) contribute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kind_jax.config import GuidanceConfig
from kind_jax.partition import Collections

Predict = Callable[[Collections, Any], Float[Array, "B H W out"]]


def shift(
    settings: GuidanceConfig,
    predict: Predict,
    average: Collections,
    drawn: Any,
    *,
    noisy: Float[Array, " B"],
    done: Int[Array, ""],
    channels: int,
) -> Float[Array, "B H W C"]:
    """How far each sample's target moves, in terms of the model's output; without a gradient, and at no cost before
    ``guidance.start``.

    Args:
      predict: the model's output for weights and a :class:`kind_jax.diffusing.task.Drawn`.
      average: the weights that predict it; all tokens go through all blocks, as in sampling.
      noisy: noise level of each sample, from 0 to 1.
      done: steps that are finished.
      channels: leading channels of the output that predict the image, and not the variance.
    """
    drawn = drawn._replace(kept=None)
    average, drawn = jax.lax.stop_gradient((average, drawn))
    unconditional = drawn._replace(
        no_embedding=jnp.ones_like(drawn.no_embedding), gate=dataclasses.replace(drawn.gate, weight=drawn.null_weight)
    )

    def difference() -> Float[Array, "B H W C"]:
        return (predict(average, drawn) - predict(average, unconditional))[..., :channels]

    def nothing() -> Float[Array, "B H W C"]:
        return jnp.zeros((*drawn.clean.shape[:-1], channels))

    moved: Bool[Array, " B"] = ~drawn.null & (noisy <= settings.until)
    found = jax.lax.cond(done >= settings.start, difference, nothing)
    return jnp.where(moved[:, None, None, None], (settings.scale - 1) * found, 0.0)


def subtracted(output: Float[Array, "B H W out"], shift: Float[Array, "B H W C"]) -> Float[Array, "B H W out"]:
    """``output`` with its target moved: ‖(output - shift) - target‖ is ‖output - (target + shift)‖, whatever is
    predicted, as noise, velocity, v and the clean image are linear in each other. A learned variance is that around the
    prediction without guidance."""
    return output.at[..., : shift.shape[-1]].add(-shift)
