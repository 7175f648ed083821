"""Learned positions for another size of images. Dimensions: T, U tokens before and after, D width."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float


def resized(positions: Float[np.ndarray, "T D"], side: int, *, tokens: int) -> Float[np.ndarray, "U D"]:
    """Positions of ``side`` x ``side`` patches from those of another square.

    Bicubic (Keys's kernel, a = -1/2), without antialiasing. For larger images that is timm's resample_abs_pos_embed up
    to rounding; for smaller ones timm smooths first unless told otherwise.

    Args:
      tokens: rows in front that belong to no patch; they stay as they are.
    """
    kept, grid = positions[:tokens], positions[tokens:]
    old, width = math.isqrt(len(grid)), positions.shape[1]
    image = jax.image.resize(
        jnp.asarray(grid).reshape(old, old, width), (side, side, width), method="cubic", antialias=False
    )
    return np.concatenate([kept, np.asarray(image).reshape(side * side, width)])
