"""From images in [-1, 1] to the bytes that metrics are computed from, and back. N: images, H, W, C: their shape."""

import numpy as np
from jaxtyping import Float, Float32, UInt8

from kind_jax.errors import UserError

RULE = "uint8 = floor(clip(127.5 x + 128, 0, 255)); never through JPEG or PNG"


def quantise(images: Float[np.ndarray, "N H W C"]) -> UInt8[np.ndarray, "N H W C"]:
    """Round as the pipelines of ADM and DiT do (:data:`RULE`); bytes that were mapped to [-1, 1] come back exactly.

    Raises:
      UserError: a value is not finite.
    """
    if not np.isfinite(images).all():
        raise UserError("images to be measured hold values that are not finite: the model or its sampler diverged.")
    return np.clip(np.float32(127.5) * images + np.float32(128), 0, 255).astype(np.uint8)


def dequantise(pixels: UInt8[np.ndarray, "N H W C"]) -> Float32[np.ndarray, "N H W C"]:
    """Map 0..255 to [-1, 1]."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_rgb(pixels: UInt8[np.ndarray, "N H W C"]) -> UInt8[np.ndarray, "N H W 3"]:
    """Grey in three equal channels; colour as it is."""
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))
