"""What samples are compared with: real images of the config's data set, or a file. N: images, H, W, C: their shape."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int, Int32, UInt8

from kind_jax.config import DataConfig
from kind_jax.data.dataset import open_dataset, real
from kind_jax.data.sets import Dataset
from kind_jax.errors import UserError
from kind_jax.evaluating.adm import Batch, read_batch
from kind_jax.evaluating.extractor import Extractor
from kind_jax.evaluating.metrics import REFERENCE_IMAGES, Seen, look
from kind_jax.evaluating.pixels import quantise
from kind_jax.files import sha256_file

_INSTEAD = "name one that has all of them (--data), or give --reference and an --extractor that needs no data set"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RealImages:
    """Images of ``classes`` in one split; all of them are read in blocks, ``limit`` of them at random.

    Attributes:
      classes: as the model numbers them.
      numbers: the model's number of each label of the data set, -1 where it has no such class.
      path: what was given in place of the data set of the model's config; None if nothing was.
    """

    dataset: Dataset
    classes: tuple[int, ...]
    numbers: Int[np.ndarray, " K"]
    limit: int | None = None
    path: str | None = None

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
            labels = self.numbers[records["label"]]
            fit = np.isin(labels, self.classes)
            if "bad" in records:  # another record took the place of one that cannot be read: it would count twice
                fit &= records["bad"] < 0
            fit = np.flatnonzero(fit)[:left]
            left -= len(fit)
            if len(fit):
                yield quantise(records["image"][fit]), labels[fit]

    def arrays(self, most: int, most_bytes: int) -> tuple[Float32[np.ndarray, "N H W C"], Int32[np.ndarray, " N"]]:
        """Images in [-1, 1] and labels of all of them, or of at most ``most`` and ``most_bytes``, chosen at random."""
        source = self.dataset.source
        most = min(most, max(1, most_bytes // (4 * math.prod(self.dataset.image_shape))))
        rows = np.arange(len(source))
        if len(source) > most:
            rows = np.sort(np.random.default_rng(0).permutation(len(source))[:most])
        records = source.gather(rows)
        labels = self.numbers[records["label"]]
        fit = np.isin(labels, self.classes)
        if "bad" in records:
            fit &= records["bad"] < 0
        return records["image"][fit], labels[fit].astype(np.int32)

    def record(self, count: int) -> dict[str, Any]:
        """What identifies the images, as JSON values."""
        return {
            "kind": "data set",
            **({} if self.path is None else {"path": self.path}),
            "fingerprint": self.dataset.fingerprint,
            "classes": list(self.classes),
            "count": count,
        }


def open_real(
    config: DataConfig,
    split: Literal["train", "test"],
    class_names: Sequence[str],
    classes: tuple[int, ...] | None,
    shape: tuple[int, int, int],
    path: str | None = None,
    *,
    instead: str = _INSTEAD,
) -> RealImages:
    """Real images of a model's classes, which are found in the data set by their names.

    A model that has grown has classes that the data set of its config lacks, and a smaller one lacks some of its.

    Args:
      class_names: of the model.
      classes: as the model numbers them; None is all that the data set has too.
      path: what was given in place of the data set of the model's config; None if nothing was.
      instead: what the caller's user may do where a class is missing, besides asking for fewer.

    Raises:
      UserError: it cannot be opened, lacks a class, or has images of another shape.
    """
    dataset = open_dataset(real(config), split)
    whose = "the data set of its config" if path is None else f"--data {path}"
    if tuple(dataset.image_shape) != shape:
        raise UserError(
            f"the model draws images of shape {shape}, but those of {whose} are {tuple(dataset.image_shape)}."
        )
    numbers = _numbers(dataset.class_names, class_names)
    known = tuple(sorted(n for n in numbers.tolist() if n >= 0))
    classes = known if classes is None else classes
    missing = [class_names[c] for c in classes if c not in known]
    if missing or not known:
        some = f"measure those that it has (--classes {_ranges(known)}), " if known else ""
        raise UserError(
            f"the model's classes are {_some(class_names)}, but {whose} has {_some(dataset.class_names)} and so lacks "
            f"{_some(missing or class_names)}; {some}{instead}."
        )
    return RealImages(dataset=dataset, classes=classes, numbers=numbers, path=path)


def _numbers(names: Sequence[str], model_names: Sequence[str]) -> Int[np.ndarray, " K"]:
    if tuple(names) == tuple(model_names):
        return np.arange(len(names))
    number = {name: i for i, name in enumerate(model_names) if model_names.count(name) == names.count(name) == 1}
    return np.array([number.get(name, -1) for name in names])


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''} ({len(names)})"


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending class numbers as the command line takes them, like 0-4,9."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and parts[-1][1] == n - 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in parts)


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
    """The features of a reference; at most :data:`~kind_jax.evaluating.metrics.REFERENCE_IMAGES` are kept.

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
