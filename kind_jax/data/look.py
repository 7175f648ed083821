"""What a folder of images holds, found out from a few hundred of its files, so that settings can follow from it."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from kind_jax.config import DataConfig
from kind_jax.data import folder as folders
from kind_jax.data import labels as labelling
from kind_jax.data.decode import LIMIT, BadImage, opened
from kind_jax.data.folder import FolderSource
from kind_jax.errors import UserError
from kind_jax.untrusted.regular import read_small

FILES = 300  # looked at, spread evenly over all
_COLOURLESS = 8  # of 255: JPEG leaves traces of colour in grey pictures
_SIDE = 64  # at which colour is looked for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What there is.

    Attributes:
      classes: name and number of images of each class that is used, in order.
      sides: the least, the median and the largest of the images' shorter sides, in pixels.
      square: whether all are square.
      channels: 1 where all are grey, else 3.
      looked_at: images that this was found out from.
    """

    classes: tuple[tuple[str, int], ...]
    sides: tuple[int, int, int]
    square: bool
    channels: Literal[1, 3]
    looked_at: int


def look(config: DataConfig) -> Look:
    """Look at the training images of a ``folder``; what is said of sizes and colours is true of those looked at.

    Raises:
      UserError: ``data.path`` has no images, ``data.classes`` names an unknown class, or no file can be read.
    """
    found = folders.find_split(config.path, "train")
    labels = labelling.choose(config, found.classes, str(config.path))
    chosen = [(name, new) for name, new in zip(found.folders, labels.renumber.tolist(), strict=True) if new >= 0]
    files, _ = folders.list_files(found.folder, chosen, 1, 3)
    counts = np.bincount(files.labels, minlength=len(labels.names)).tolist()
    sizes, grey, last = [], True, "it has no files"
    for index in np.unique(np.linspace(0, len(files) - 1, min(FILES, len(files))).astype(int)).tolist():
        try:
            size, pixels = _open(files, index)
        except BadImage as e:
            last = f"{files.path(index)}: {e}"
            continue
        sizes.append(size)
        grey = grey and int(np.ptp(pixels.astype(np.int16), axis=-1).max()) <= _COLOURLESS
    if not sizes:
        raise UserError(f"{str(found.folder)!r} has no image that can be read; the last one: {last}.")
    shorter = [min(size) for size in sizes]
    return Look(
        classes=tuple(zip(labels.names, counts, strict=True)),
        sides=(min(shorter), int(np.median(shorter)), max(shorter)),
        square=all(width == height for width, height in sizes),
        channels=1 if grey else 3,
        looked_at=len(sizes),
    )


def _open(files: FolderSource, index: int) -> tuple[tuple[int, int], UInt8[np.ndarray, "h w 3"]]:
    """Width and height of an image, and a small copy of it."""
    try:
        data = read_small(files.path(index), LIMIT)
    except UserError as e:
        raise BadImage(str(e)) from e
    with opened(data) as image:
        size = image.size
        image.draft("RGB", (_SIDE, _SIDE))  # a large JPEG is decoded at an eighth of its size
        small = image.convert("RGB")
        small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
        return size, np.asarray(small)
