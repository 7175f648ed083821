"""Synthetic images beside the real ones of a training set, matched by the names of their classes."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from kind_jax.classes import readable
from kind_jax.config import DataConfig
from kind_jax.data import folder as folders
from kind_jax.data.decode import LIMIT, BadImage, opened, to_float
from kind_jax.data.folder import FolderSource
from kind_jax.data.joined import Joined
from kind_jax.data.parts import labels_of
from kind_jax.data.sets import Dataset, MemorySource, Source
from kind_jax.errors import UserError
from kind_jax.untrusted.regular import read_small
from kind_jax.untrusted.text import printable

# What kind-jax synthesize writes beside train/: the recipe when all images are there, and how far it is.
RECIPE, STATE = "synthesis.json", ".synthesis"
_RULE = "real records first; of each class the first files by name, its share of ratio * records by largest remainders"
_WANTED = "a folder with train/ in it and there a folder of images for each class, as kind-jax synthesize writes it"
_BLOCK, _SHOWN = 256, 12


def mix(dataset: Dataset, config: DataConfig, *, memory: int) -> Dataset:
    """A training set with the images of ``data.mix`` behind its own: ``data.mix_ratio`` times as many.

    Of a real set whose labels are not known, as that of a TFDS set too large for memory, every record is read once for
    its label. Nothing describes the synthetic images, so the set has no captions any more, and is divided no further.

    Args:
      memory: bytes; real images in memory stay there, together with the synthetic ones, where they take less.

    Raises:
      UserError: the folder is none of this form or not finished, lacks a class of the real set, has one that the real
        set does not know or too few images of one, or images of another size.
    """
    root = _opened(config.mix)
    split = folders.find_split(str(root), "train")
    _check_classes(dataset, split.classes, config)
    counts = _counts(dataset)
    wanted = shares(counts, float(config.mix_ratio))
    if not sum(wanted):
        raise UserError(
            f"data.mix_ratio is {config.mix_ratio}, which is not one image for {sum(counts)} real ones, but it must be "
            "large enough for one."
        )
    place = dict(zip(split.classes, split.folders, strict=True))
    files, digest = _files(dataset, split.folder, [place[name] for name in dataset.class_names], wanted, config)
    source, content, bad = _together(dataset.source, files, digest, config, memory)
    added = len(source) - len(dataset.source)
    drawn = files.labels if isinstance(source, Joined) else source.labels[-added:]
    fingerprint = {
        **dataset.fingerprint,
        "records": len(source),
        "mix": {
            "ratio": float(config.mix_ratio), "records": added, "content": {"sha256": content}, "rule": _RULE,
            "reading": folders.READING,
        },
    }  # fmt: skip
    synthetic = tuple(np.bincount(drawn, minlength=len(wanted)).tolist())
    return dataclasses.replace(
        dataset, source=source, fingerprint=fingerprint, bad=(*dataset.bad, *bad), synthetic=synthetic,
        captions=None, families=None,
    )  # fmt: skip


def shares(counts: Sequence[int], ratio: float) -> list[int]:
    """``ratio`` times each number, in whole numbers whose sum is that of all, rounded: by largest remainders.

    Each is less than one off, and of equal remainders the first ones are rounded up.
    """
    exact = [ratio * count for count in counts]
    found = [math.floor(value) for value in exact]
    left = math.floor(ratio * sum(counts) + 0.5) - sum(found)
    order = sorted(range(len(counts)), key=lambda i: found[i] - exact[i])
    for i in order[: max(left, 0)]:
        found[i] += 1
    return found


def _opened(mix: str | None) -> Path:
    """The folder of ``data.mix``, if it is one and finished."""
    if mix is None or "://" in mix or not (Path(mix).expanduser() / "train").is_dir():
        raise UserError(f"data.mix is {mix!r}, but it must be {_WANTED}.")
    root = Path(mix).expanduser()
    if (root / STATE).exists() and not (root / RECIPE).is_file():
        raise UserError(
            f"data.mix is {mix!r}, whose images are not all drawn yet, but it must be complete: the kind-jax "
            "synthesize command that began it goes on."
        )
    return root


def _check_classes(dataset: Dataset, names: Sequence[str], config: DataConfig) -> None:
    known = dataset.all_names
    where = f"data.mix is {config.mix!r}"
    if len(set(known)) < len(known):
        twice = next(name for name in known if known.count(name) > 1)
        raise UserError(f"{where}, but the data set has two classes named {twice!r}, which must be told apart by name.")
    if missing := [name for name in dataset.class_names if name not in names]:
        raise UserError(f"{where}, which lacks {_some(missing)}, but it must have every class that the run uses.")
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"{where}, which has {_some(unknown)}, but its classes must be among those of the data set: {_some(known)}."
        )


def _counts(dataset: Dataset) -> tuple[int, ...]:
    if (counts := dataset.counts) is not None:
        return counts
    labels = labels_of(dataset.source)
    return tuple(np.bincount(labels[labels >= 0], minlength=len(dataset.class_names)).tolist())


def _files(
    dataset: Dataset, train: Path, places: Sequence[str], wanted: Sequence[int], config: DataConfig
) -> tuple[FolderSource, str]:
    """The first files of each class by name, and the SHA-256 of their paths and sizes."""
    height, width, channels = dataset.image_shape
    where = f"data.mix is {config.mix!r}"
    if height != width:
        raise UserError(f"{where}, but it must be None for a data set of {height} x {width} pixels: it takes squares.")
    chosen, few = [], []
    for name, place, count in zip(dataset.class_names, places, wanted, strict=True):
        files, _ = folders.class_files(train, place) or ([], 0)
        if len(files) < count:
            few.append(f"{printable(name, 40)} ({len(files)} of {count})")
        chosen.append(files[:count])
    if few:
        raise UserError(
            f"{where}, which has too few images for data.mix_ratio {config.mix_ratio}: {_some(few)}; kind-jax "
            f"synthesize --per-class {max(wanted)} draws enough."
        )
    digest = hashlib.sha256(b"".join(b"%s\0%d\n" % file for files in chosen for file in files))
    names = [path for files in chosen for path, _ in files]
    source = FolderSource(
        folder=train,
        names=b"".join(names),
        ends=np.cumsum([len(name) for name in names], dtype=np.int64),
        labels=np.repeat(np.arange(len(wanted), dtype=np.int32), wanted),
        size=height,
        channels=channels,  # pyright: ignore[reportArgumentType]
    )
    _check_sizes(source, where)
    return source, digest.hexdigest()


def _check_sizes(source: FolderSource, where: str) -> None:
    """Refuse images of another size, which would be scaled without a word; those that cannot be read are left to
    ``data.skip_bad``."""

    def size(index: int) -> tuple[int, int]:
        try:
            with opened(read_small(source.path(index), LIMIT)) as image:
                return image.size
        except BadImage:
            return source.size, source.size

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        sizes = list(pool.map(size, range(len(source))))
    for index, (width, height) in enumerate(sizes):
        if (height, width) != (source.size, source.size):
            path = source.path(index)
            raise UserError(
                f"{where}, where {str(path)!r} has {height} x {width} pixels, but it must have the real images' "
                f"{source.size} x {source.size}."
            )


def _together(
    real: Source, files: FolderSource, digest: str, config: DataConfig, memory: int
) -> tuple[Joined | MemorySource, str, list[str]]:
    """Both as one source, what identifies the synthetic part, and a line about each of its files left out."""
    small = len(files) * files.size**2 * files.channels * 4
    if not isinstance(real, MemorySource) or real.images.nbytes + small >= memory:
        return Joined(first=real, second=files), digest, []
    pixels, rows, bad = files.decode_all(config.skip_bad)
    drawn = MemorySource(images=to_float(pixels), labels=files.labels[rows])
    both: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in (real, drawn)]) for name in ("images", "labels")
    }
    return MemorySource(**both), drawn.sha256(), bad


def _some(names: Sequence[str]) -> str:
    shown = [printable(name, 60) for name in names[:_SHOWN]]
    return readable(shown if len(names) <= _SHOWN else [*shown, f"{len(names) - _SHOWN} more"])
