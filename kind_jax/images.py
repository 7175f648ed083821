"""From arrays in [-1, 1] to pictures that people look at. N: images, H: height, W: width, C: channels."""

import io
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from kind_jax.config.check import is_whole, require
from kind_jax.errors import UserError
from kind_jax.files import atomic_write_bytes

_GAP = 128  # mid-grey sets images apart on black and on white backgrounds alike


def to_uint8(images: Float[np.ndarray | jax.Array, "N H W C"]) -> UInt8[np.ndarray, "N H W C"]:
    """Map [-1, 1] to 0..255, rounded to nearest; values outside are clipped.

    Raises:
      UserError: a value is NaN or infinite, which no pixel can show.
    """
    values = np.asarray(images, np.float32)
    if wrong := int(np.sum(~np.isfinite(values).reshape(len(values), -1).all(axis=1))) if len(values) else 0:
        raise UserError(
            f"{wrong} of {len(values)} images have values that are NaN or infinite, but they must be finite."
        )
    return np.rint((np.clip(values, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def grid(
    images: Float[np.ndarray | jax.Array, "N H W C"] | UInt8[np.ndarray, "N H W C"],
    columns: int,
    scale: int = 1,
    pad: int = 2,
) -> UInt8[np.ndarray, "height width 3"]:
    """Lay images out in rows of ``columns``, read like text; the cells after the last image stay grey.

    Args:
      images: [-1, 1] in floating point, or uint8 as it is; one channel (grey) or three (RGB).
      columns: images in a row.
      scale: whole-number enlargement by repeating pixels, so that small images stay crisp.
      pad: grey pixels between neighbours, not enlarged.

    Raises:
      UserError: no images, a channel count other than 1 or 3, a value that is NaN or infinite, or a setting below its
        minimum.
    """
    for name, value, least in (("columns", columns, 1), ("scale", scale, 1), ("pad", pad, 0)):
        require(is_whole(value) and value >= least, f"{name} of an image grid", value, f"{least} or more")
    pixels = to_uint8(images) if images.dtype != np.uint8 else np.asarray(images)
    count, height, width, channels = pixels.shape
    if count == 0:
        raise UserError("An image grid got 0 images, but it must get at least 1.")
    if channels not in (1, 3):
        raise UserError(f"An image grid got images of {channels} channels, but they must have 1 (grey) or 3 (RGB).")
    pixels = np.broadcast_to(pixels, (count, height, width, 3)).repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = height * scale, width * scale
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = np.full((rows * (height + pad) - pad, columns * (width + pad) - pad, 3), _GAP, np.uint8)
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (height + pad), (i % columns) * (width + pad)
        canvas[top : top + height, left : left + width] = image
    return canvas


def show(
    images: Float[np.ndarray | jax.Array, "*N H W C"] | UInt8[np.ndarray, "*N H W C"], columns: int = 8
) -> Image.Image:
    """A :func:`grid` of images, or one, small ones enlarged to 64 pixels or more, as a picture that notebooks display.

    Raises:
      UserError: as :func:`grid`.
    """
    if getattr(images, "ndim", 0) == 3:
        images = images[None]
    side = max(images.shape[1], 1) if getattr(images, "ndim", 0) == 4 else 0
    if not side:
        raise UserError(f"images is {type(images).__name__}, but it must be an array [N, height, width, channels].")
    return Image.fromarray(grid(images, columns, scale=max(1, 64 // side)))


def png_bytes(array: UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "H W 1"] | UInt8[np.ndarray, "H W"]) -> bytes:
    """One picture as a PNG file, without loss."""
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def save_png(
    path: str | Path, array: UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "H W 1"] | UInt8[np.ndarray, "H W"]
) -> None:
    """Write a picture to ``path``, whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    atomic_write_bytes(path, png_bytes(array))
