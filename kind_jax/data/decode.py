"""Image files from anywhere to square pixels of eight bits, or the reason why not. S: side, C: channels."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from kind_jax.untrusted.text import printable

LIMIT = 256 << 20  # bytes of a file
PIXELS = 178_000_000  # of an image, before and after it is resized; Pillow, too, refuses about so many

# Image.open would warn about large images, takes a camera's JPEG with a preview for an animation, and knows formats
# that call other programs (EPS calls Ghostscript). Which of these few formats a file has is what its beginning says.
_FORMATS: tuple[tuple[re.Pattern[bytes], str, type[ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG", JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG", PngImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WebP", WebPImageFile),
    (re.compile(rb"GIF8[79]a"), "GIF", GifImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "TIFF", TiffImageFile),
    (re.compile(rb"BM"), "BMP", BmpImageFile),
)
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}  # eight bits a channel, or fewer

# The filter that warnings.filterwarnings makes of the call below.
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_filters = threading.Lock()


class BadImage(Exception):  # noqa: N818 - not a failure of the program
    """A record that cannot be read; the message is the reason, without the record's name."""


def decode(data: bytes, size: int, channels: Literal[1, 3]) -> UInt8[np.ndarray, "S S C"]:
    """The centre of an image file's only picture, S = ``size`` pixels high and wide; threads may call it at once.

    Colours with fewer or more channels, palettes and transparency are converted as Pillow's ``convert`` does.

    Args:
      data: content of a JPEG, PNG, WebP, GIF, TIFF or BMP file.
      size: side of the result.
      channels: 3 for red, green and blue, 1 for grey.

    Raises:
      BadImage: it is none of these, damaged, animated, too large, or of more than eight bits a channel.
    """
    with opened(data) as image:
        pixels = centre_crop(image.convert("RGB" if channels == 3 else "L"), size)
    return pixels[..., None] if channels == 1 else pixels


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[ImageFile]:
    """An image file's only picture, not decoded yet; what fails while it is used is a :class:`BadImage` too.

    Raises:
      BadImage: as :func:`decode`.
    """
    if len(data) > LIMIT:
        raise BadImage(f"it has {len(data)} bytes, but at most {LIMIT} are read")
    if not data:
        raise BadImage("it is empty")
    found = next(((name, reader) for start, name, reader in _FORMATS if start.match(data)), None)
    if found is None:
        raise BadImage("it is no JPEG, PNG, WebP, GIF, TIFF or BMP image")
    name, reader = found
    _quieten()
    try:
        with reader(io.BytesIO(data)) as image:
            _check(image, data)
            # Of no use to the pixels, and a palette with several transparent colours would make Pillow warn.
            image.info.pop("transparency", None)
            yield image
    except BadImage:
        raise
    except Exception as e:  # Pillow raises a dozen types on damaged data, SyntaxError and MemoryError among them
        reason = printable(e) or type(e).__name__
        raise BadImage(f"it cannot be decoded as {name} ({reason})") from e


def centre_crop(image: Image.Image, size: int) -> UInt8[np.ndarray, "S S *C"]:
    """ADM's ``center_crop_arr``, which DiT uses as well: halve while possible, resize the short side, cut the middle.

    Source: github.com/openai/guided-diffusion, ``image_datasets.py``.

    Raises:
      BadImage: the image is so long and thin that it would become too large.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    if width * height > PIXELS:
        raise BadImage(f"it is too long and thin: resized, it would have {width} x {height} pixels")
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]


def to_float(images: UInt8[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
    """Map 0..255 to float32 in [-1, 1]; both ends are exact."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def _check(image: ImageFile, data: bytes) -> None:
    """Refuse what the header says, before pixels are decoded."""
    if getattr(image, "is_animated", False):  # before the size, which GIF learns with the first frame
        raise BadImage("it is animated, or has several pages")
    width, height = image.size
    if not 1 <= width * height <= PIXELS:
        raise BadImage(f"it has {width} x {height} pixels, but at most {PIXELS} are decoded")
    # A progressive JPEG of many tiny scans would be decoded for hours; counted generously, as previews have some too.
    if isinstance(image, JpegImageFile) and data.count(b"\xff\xda") * width * height > 100 * PIXELS:
        raise BadImage("it has too many scans for its size")
    if image.mode not in _MODES:
        raise BadImage(f"its pixels are of Pillow's mode {image.mode!r}, but they must have at most 8 bits a channel")


def _quieten() -> None:
    """No warning of Pillow's about odd metadata, which has no bearing on pixels.

    ``warnings.catch_warnings`` would not do: it is the same for all threads, and they would undo each other's.
    """
    if not warnings.filters or warnings.filters[0] != _QUIET:
        with _filters:
            warnings.filterwarnings("ignore", module=r"PIL\.")
