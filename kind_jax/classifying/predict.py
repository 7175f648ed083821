"""What a classifier in hand says of images. N: images, K: classes."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kind_jax.classifying import network
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config.check import is_whole, require
from kind_jax.config.networks import Network
from kind_jax.deploy.bundle import Bundle, check_bundle
from kind_jax.errors import UserError


def classify(
    bundle: Bundle, images: Float[np.ndarray, "N H W C"], *, superclass: int | None = None, batch: int = 256
) -> Float[np.ndarray, "N K"]:
    """Probabilities of the classes of each image.

    Args:
      bundle: a classifier, as :func:`kind_jax.open_bundle` gives.
      images: float32 in [-1, 1].
      superclass: number of the group of classes that all images are of; a gated classifier needs it, and gives classes
        of other groups the probability 0.
      batch: images at a time.

    Raises:
      UserError: images of another shape or type, a superclass where there are none, none where one is needed, or one
        whose tailors are not aboard.
    """
    check_bundle(bundle, kind=ClassifyRun)
    settings = bundle.config.model
    shape = (settings.size, settings.size, settings.channels)
    found = getattr(images, "shape", type(images).__name__)
    wanted = f"an array of {settings.size} x {settings.size} pixels in {settings.channels} channels, [N, *{shape}]"
    require(isinstance(found, tuple) and len(found) == 4 and found[1:] == shape, "images", found, wanted)
    require(jnp.issubdtype(images.dtype, jnp.floating), "images", images.dtype, "float, nominally in [-1, 1]")
    require(is_whole(batch) and batch >= 1, "batch", batch, "a whole number, 1 or more")
    require(bool(np.isfinite(images).all()), "images", "NaN or infinite in places", "finite")
    batch = min(int(batch), max(len(images), 1))
    row = jnp.int32(_row(bundle, superclass))
    group = jnp.int32(0 if superclass is None else superclass)
    weights = jax.tree.map(jnp.asarray, bundle.collections)
    parts = []
    for start in range(0, len(images), batch):
        part = np.asarray(images[start : start + batch], np.float32)
        padded = np.concatenate([part, np.zeros((batch - len(part), *shape), np.float32)])
        parts.append(np.asarray(_probabilities(settings, weights, padded, row, group))[: len(part)])
    return np.concatenate(parts) if parts else np.zeros((0, settings.num_classes), np.float32)


def _row(bundle: Bundle, superclass: int | None) -> int:
    """The row of the bank that a superclass switches on."""
    settings = bundle.config.model
    if not settings.gated:
        if superclass is not None:
            raise UserError(f"superclass is {superclass!r}, but it must be None: {bundle.origin} has no gated tailors.")
        return 0
    if not is_whole(superclass) or superclass not in bundle.groups:
        raise UserError(
            f"superclass is {superclass!r}, but it must be one of the groups that {bundle.origin} serves: "
            f"{', '.join(map(str, bundle.groups))}."
        )
    return bundle.groups.index(superclass)


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(
    settings: Network, weights: Any, images: Any, row: Int[Array, ""], superclass: Int[Array, ""]
) -> Float[Array, "B K"]:
    count = len(images)
    given = jnp.broadcast_to(superclass, (count,)) if settings.gated else None
    gate = network.gate_of(settings, jnp.broadcast_to(row, (count,)))
    return jax.nn.softmax(network.logits(settings, weights, images, gate, superclass=given)[0], axis=-1)
