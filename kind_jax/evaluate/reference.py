"""What samples are compared with: real images of the config's data set, or a file. N: images, H, W, C: their shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, UInt8

from kind_jax.config import DataConfig
from kind_jax.data.dataset import Dataset, open_dataset
from kind_jax.errors import UserError
from kind_jax.evaluate.adm import Batch, read_batch
from kind_jax.evaluate.extractor import Extractor
from kind_jax.evaluate.metrics import REFERENCE_IMAGES, Seen, look
from kind_jax.evaluate.pixels import quantise
from kind_jax.files import sha256_file


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RealImages:
    """Images of ``classes`` in one split; all of them are read in blocks, ``limit`` of them at random."""

    dataset: Dataset
    classes: tuple[int, ...]
    limit: int | None = None

    @property
    def most(self) -> int:
        """At most so many images; exact where all classes are taken."""
        return min(len(self.dataset.source), self.limit or len(self.dataset.source))

    def __iter__(self) -> Iterator[tuple[UInt8[np.ndarray, "N H W C"], Int[np.ndarray, " N"]]]:
        source, block = self.dataset.source, 1024
        order = np.arange(len(source))
        if self.limit is not None and self.limit < len(source):
            order = np.random.default_rng(0).permutation(len(source))
        left = self.limit if self.limit is not None else len(source)
        for start in range(0, len(source), block):
            if left <= 0:
                return
            records = source.gather(order[start : start + block])
            fit = np.isin(records["label"], self.classes)
            if "bad" in records:  # another record took the place of one that cannot be read: it would count twice
                fit &= records["bad"] < 0
            fit = np.flatnonzero(fit)[:left]
            left -= len(fit)
            if len(fit):
                yield quantise(records["image"][fit]), records["label"][fit]

    def record(self, count: int) -> dict[str, Any]:
        """What identifies the images, as JSON values."""
        return {
            "kind": "data set",
            "fingerprint": self.dataset.fingerprint,
            "classes": list(self.classes),
            "count": count,
        }


def open_real(
    config: DataConfig,
    split: Literal["train", "test"],
    class_names: Sequence[str],
    classes: tuple[int, ...],
    shape: tuple[int, int, int],
) -> RealImages:
    """The data set that a model was trained on.

    Raises:
      UserError: it cannot be opened, or is not the model's: it has other classes or images of another shape.
    """
    dataset = open_dataset(config, split)
    if tuple(dataset.class_names) != tuple(class_names):
        raise UserError(
            f"the model's classes are {_some(class_names)}, but those of the data set of its config are "
            f"{_some(dataset.class_names)}; give --reference and an --extractor that needs no data set."
        )
    if tuple(dataset.image_shape) != shape:
        raise UserError(
            f"the model draws images of shape {shape}, but those of the data set of its config are "
            f"{tuple(dataset.image_shape)}."
        )
    return RealImages(dataset=dataset, classes=classes)


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''} ({len(names)})"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceFile:
    """A ``.npz`` file of images, statistics, or both; then the statistics serve distances, the images the rest."""

    path: Path
    sha256: str
    batch: Batch

    @property
    def most(self) -> int | None:
        """Number of images; None in a file of statistics alone."""
        return None if self.batch.images is None else len(self.batch.images)

    def images(self, channels: int) -> UInt8[np.ndarray, "N H W C"]:
        """The images in a model's number of channels.

        Raises:
          UserError: colour images for a grey model.
        """
        images = self.batch.images
        assert images is not None
        if channels == 3:
            return images
        if not (images == images[..., :1]).all():
            raise UserError(f"--reference is {str(self.path)!r} with images in colour, but the model draws grey ones.")
        return np.ascontiguousarray(images[..., :1])

    def statistics_fit(self, extractor: Extractor) -> bool:
        """Whether its statistics are of this extractor's features; a file that does not say so is Inception's."""
        if self.batch.pool is None:
            return False
        mine = self.batch.extractor or (extractor.fingerprint if extractor.names.frechet == "fid" else None)
        return mine == extractor.fingerprint

    def check(self, extractor: Extractor | None) -> None:
        """Refuse statistics of another extractor in a file without images.

        Args:
          extractor: None is a judge that is not trained yet, which only a file that names its extractor can be of.

        Raises:
          UserError: naming both extractors.
        """
        if self.batch.images is not None:
            return
        if extractor is None:
            fits, name = self.batch.extractor is not None, "judge"
        else:
            fits, name = self.statistics_fit(extractor), f"{extractor.name} ({extractor.fingerprint:.12})"
        if not fits:
            whose = self.batch.extractor or "Inception"
            raise UserError(
                f"--reference is {str(self.path)!r} with statistics of {whose:.12}, but the extractor is {name}."
            )

    def record(self, count: int | None) -> dict[str, Any]:
        """What identifies it, as JSON values."""
        return {"kind": "file", "path": str(self.path), "fingerprint": self.sha256, "count": count}


def open_reference_file(path: Path, shape: tuple[int, int, int]) -> ReferenceFile:
    """Read a reference for a model that draws images of ``shape`` [H, W, C].

    Raises:
      UserError: it cannot be read, or its images have another size, or are in colour for a grey model.
    """
    batch = read_batch(path, shape[:2])
    reference = ReferenceFile(path=path, sha256=sha256_file(path), batch=batch)
    if batch.images is not None:
        reference.images(shape[-1])  # refuses colour for a grey model
    return reference


def look_at_reference(
    reference: RealImages | ReferenceFile,
    extractor: Extractor,
    channels: int,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Seen:
    """The features of a reference; at most :data:`~kind_jax.evaluate.metrics.REFERENCE_IMAGES` are kept.

    Raises:
      UserError: too few images, or statistics of another extractor.
    """
    if isinstance(reference, RealImages):
        return look(extractor, reference, "the reference images", keep=REFERENCE_IMAGES, progress=progress)
    batch, fits = reference.batch, reference.statistics_fit(extractor)
    reference.check(extractor)
    if batch.images is None:
        assert batch.pool is not None
        return Seen(count=0, pool=batch.pool, spatial=batch.spatial)
    pixels = reference.images(channels)
    parts = ((pixels[i : i + 1024], None) for i in range(0, len(pixels), 1024))
    seen = look(extractor, parts, "the reference images", keep=REFERENCE_IMAGES, progress=progress)
    if batch.pool is None or not fits:
        return seen
    return dataclasses.replace(seen, pool=batch.pool, spatial=batch.spatial)
