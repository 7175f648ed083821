"""Open a data set: records as float images and renumbered labels, with a fingerprint of where they came from."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol, SupportsIndex, runtime_checkable

import numpy as np
from jaxtyping import Float, Int32

from kind_jax.config import DataConfig
from kind_jax.data import folder as folders
from kind_jax.data.decode import to_float
from kind_jax.data.folder import FolderSource
from kind_jax.data.prepared import data_root, open_prepared, prepare
from kind_jax.data.records import RecordSource
from kind_jax.errors import UserError

# Decoded sets below this many bytes are held in memory, which makes a batch one gather.
MEMORY_LIMIT = 1 << 30


@runtime_checkable
class Source(Protocol):
    """Random access to records; also a Grain ``RandomAccessDataSource``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Record: ``image`` float32 [H, W, C] in [-1, 1], ``label`` int32 scalar."""
        ...

    def gather(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Several records: ``image`` float32 [B, H, W, C], ``label`` int32 [B].

        A source that reads records when they are asked for adds ``bad`` int64 [B]: the index of a record that could not
        be read, in whose place the next one stands that could (``bad.read_around``); -1 for all others.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """One split of a data set.

    Attributes:
      source: the records.
      class_names: name of each label, after the selection, in the order of ``data.classes``.
      image_shape: (H, W, C).
      fingerprint: what identifies the records and their order, as JSON values. Its ``content`` is the SHA-256 of the
        decoded records of a set in memory, and only the sizes of the record files of a larger one: reading those whole
        would delay every start. That of a folder is the SHA-256 of all paths and sizes.
      bad: a line about each record that was left out because it cannot be read.
    """

    source: Source
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    fingerprint: dict[str, Any]
    bad: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorySource:
    """Records decoded into two arrays, made read-only because records are views of them."""

    images: Float[np.ndarray, "N H W C"]
    labels: Int32[np.ndarray, " N"]

    def __post_init__(self) -> None:
        self.images.flags.writeable = False
        self.labels.flags.writeable = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        return {"image": self.images[index], "label": self.labels[index]}

    def gather(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        return {"image": self.images[indices], "label": self.labels[indices]}


def open_dataset(config: DataConfig, split: Literal["train", "test"]) -> Dataset:
    """Open a split of the configured data set, preparing the data set on first use.

    A set whose decoded images take less than ``MEMORY_LIMIT`` bytes is decoded once, here, without the records that
    cannot be read; a larger one is read record by record. Selecting classes in a larger prepared one reads every label
    once.

    Raises:
      UserError: ``data.path`` is unusable, ``data.classes`` names an unknown class, the prepared data set is damaged,
        more than ``data.skip_bad`` of its records cannot be read, or an installed package lacks a file that the data
        set is made from.
    """
    return _open_folder(config, split) if config.source == "folder" else _open_prepared(config, split)


def _open_folder(config: DataConfig, split: Literal["train", "test"]) -> Dataset:
    folder, names = folders.find_split(config.path, split)
    classes = _chosen(config, names, config.path)
    chosen = sorted((names[label], new) for new, label in enumerate(classes))  # records stay in the order of names
    files, digest = folders.list_files(folder, chosen, config.size, config.channels)
    if not len(files):
        raise UserError(f"{str(folder)!r} has no image of the classes that data.classes names.")
    source, bad = files, []
    if _fits_in_memory(files, (config.size, config.size, config.channels)):
        pixels, labels, bad = files.decode_all(config.skip_bad)
        source = MemorySource(images=to_float(pixels), labels=labels)
        digest = _hash(source)
    return Dataset(
        source=source,
        class_names=tuple(names[label] for label in classes),
        image_shape=(config.size, config.size, config.channels),
        fingerprint={
            "name": "folder",
            "reading": folders.READING,
            "split": split,
            "records": len(source),
            "content": {"sha256": digest},
            "classes": list(classes),
            "image_shape": [config.size, config.size, config.channels],
        },
        bad=tuple(bad),
    )


def _open_prepared(config: DataConfig, split: Literal["train", "test"]) -> Dataset:
    folder = prepare(config.source, data_root(config.path))
    prepared = open_prepared(folder, split)
    names = prepared.class_names
    classes = _chosen(config, names, prepared.name)
    renumber = np.full(len(names), -1, np.int32)
    renumber[list(classes)] = np.arange(len(classes), dtype=np.int32)

    records = RecordSource(
        records=prepared.records, keep=None, renumber=renumber, image_shape=prepared.image_shape, folder=folder
    )
    source, bad = records, []
    if _fits_in_memory(records, prepared.image_shape):
        source, bad = _decode(records, config.skip_bad)
        content = {"sha256": _hash(source)}
    else:
        if config.classes is not None:
            keep, bad = _selected(records, config.skip_bad)
            source = dataclasses.replace(records, keep=keep)
        content = {"sizes": {path.name: path.stat().st_size for path in prepared.files}}
    if len(source) == 0:
        raise UserError(f"data.classes is {classes}, but the {split} split of {prepared.name} has no such record.")
    return Dataset(
        source=source,
        class_names=tuple(names[label] for label in classes),
        image_shape=prepared.image_shape,
        fingerprint={
            "name": prepared.name,
            "version": prepared.version,
            "split": split,
            "records": len(source),
            "content": content,
            "classes": list(classes),
            "image_shape": list(prepared.image_shape),
        },
        bad=tuple(bad),
    )


def _chosen(config: DataConfig, names: Sequence[str], of: str | None) -> tuple[int, ...]:
    classes = tuple(range(len(names))) if config.classes is None else config.classes
    unknown = [label for label in classes if not 0 <= label < len(names)]
    if unknown:
        raise UserError(f"data.classes contains {unknown[0]}, but the classes of {of} are 0 to {len(names) - 1}.")
    return classes


def _fits_in_memory(records: RecordSource | FolderSource, image_shape: tuple[int, int, int]) -> bool:
    return len(records) * math.prod(image_shape) * 4 < MEMORY_LIMIT


def _decode(source: RecordSource, limit: float) -> tuple[MemorySource, list[str]]:
    """The records that can be read; of one that cannot in a sound file a line."""
    images, labels, bad = [], [], []
    for start in range(0, len(source), 1024):
        block = range(start, min(start + 1024, len(source)))
        source.refuse_damaged_files(block)
        chunk = source.gather_good(block, limit, bad)
        selected = chunk["label"] >= 0
        images.append(chunk["image"][selected])
        labels.append(chunk["label"][selected])
    return MemorySource(images=np.concatenate(images), labels=np.concatenate(labels)), bad


def _selected(source: RecordSource, limit: float) -> tuple[Int32[np.ndarray, " N"], list[str]]:
    """The numbers of the records of selected classes, and a line about each record whose class cannot be read."""
    numbers, bad = [], []
    for start in range(0, len(source), 1024):
        chunk = source.gather_good(range(start, min(start + 1024, len(source))), limit, bad)
        numbers.append(chunk["index"][chunk["label"] >= 0])
    return np.concatenate(numbers).astype(np.int32), bad


def _hash(source: MemorySource) -> str:
    """SHA-256 of the decoded records.

    Not of the record files: protobuf orders a record's fields at random in each process, so the same data set prepared
    twice, say on two hosts, gives files that differ.
    """
    digest = hashlib.sha256(source.labels.astype("<i4").tobytes())
    digest.update(source.images.astype("<f4").data)
    return digest.hexdigest()
