"""Open a data set: records as float images and renumbered labels, with a fingerprint of where they came from."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, SupportsIndex, runtime_checkable

import numpy as np
from jaxtyping import Float, Int32, UInt8

from kind_jax.config import DataConfig
from kind_jax.data.prepared import damaged, data_root, open_prepared, prepare, refuse_damage
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
        """Several records: ``image`` float32 [B, H, W, C], ``label`` int32 [B]."""
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
        would delay every start.
    """

    source: Source
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    fingerprint: dict[str, Any]


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSource:
    """Records read and decoded when they are asked for.

    Attributes:
      records: TFDS data source that gives uint8 images and labels of the data set.
      keep: which records are used; None is all of them.
      renumber: the new label of each label of the data set, -1 for one that is not selected.
      folder: named in errors.
    """

    records: Any
    keep: Int32[np.ndarray, " N"] | None
    renumber: Int32[np.ndarray, " K"]
    folder: Path

    def __len__(self) -> int:
        return len(self.records) if self.keep is None else len(self.keep)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        batch = self.gather([operator.index(index)])
        return {"image": batch["image"][0], "label": batch["label"][0]}

    def gather(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        chosen = np.asarray(indices) if self.keep is None else self.keep[indices]
        with refuse_damage(self.folder):
            rows = self.records.__getitems__(chosen.tolist())
        labels = np.asarray([row["label"] for row in rows])
        if labels.min() < 0 or labels.max() >= len(self.renumber):
            raise damaged(self.folder, f"a label is outside 0..{len(self.renumber) - 1}")
        return {"image": to_float(np.stack([row["image"] for row in rows])), "label": self.renumber[labels]}


def to_float(images: UInt8[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
    """Map 0..255 to float32 in [-1, 1]; both ends are exact."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def open_dataset(config: DataConfig, split: Literal["train", "test"]) -> Dataset:
    """Open a split of the configured data set, preparing the data set on first use.

    A set whose decoded images take less than ``MEMORY_LIMIT`` bytes is decoded once, here; a larger one is read record
    by record. Selecting classes in a larger one reads every label once.

    Raises:
      UserError: ``data.path`` is unusable, ``data.classes`` names an unknown class, the prepared data set is damaged,
        or an installed package lacks a file that the data set is made from.
    """
    folder = prepare(config.source, data_root(config.path))
    prepared = open_prepared(folder, split)
    names = prepared.class_names
    classes = tuple(range(len(names))) if config.classes is None else config.classes
    unknown = [label for label in classes if not 0 <= label < len(names)]
    if unknown:
        raise UserError(
            f"data.classes contains {unknown[0]}, but the classes of {prepared.name} are 0 to {len(names) - 1}."
        )
    renumber = np.full(len(names), -1, np.int32)
    renumber[list(classes)] = np.arange(len(classes), dtype=np.int32)

    records = RecordSource(records=prepared.records, keep=None, renumber=renumber, folder=folder)
    if len(records) * math.prod(prepared.image_shape) * 4 < MEMORY_LIMIT:
        source = _decode(records)
        content = {"sha256": _hash(source)}
    else:
        source = records if config.classes is None else dataclasses.replace(records, keep=_selected(records))
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
    )


def _chunks(source: RecordSource, size: int = 1024) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(source), size):
        yield source.gather(range(start, min(start + size, len(source))))


def _decode(source: RecordSource) -> MemorySource:
    chunks = [{name: array[chunk["label"] >= 0] for name, array in chunk.items()} for chunk in _chunks(source)]
    return MemorySource(
        images=np.concatenate([chunk["image"] for chunk in chunks]),
        labels=np.concatenate([chunk["label"] for chunk in chunks]),
    )


def _selected(source: RecordSource) -> Int32[np.ndarray, " N"]:
    labels = np.concatenate([chunk["label"] for chunk in _chunks(source)])
    return np.flatnonzero(labels >= 0).astype(np.int32)


def _hash(source: MemorySource) -> str:
    """SHA-256 of the decoded records.

    Not of the record files: protobuf orders a record's fields at random in each process, so the same data set prepared
    twice, say on two hosts, gives files that differ.
    """
    digest = hashlib.sha256(source.labels.astype("<i4").tobytes())
    digest.update(source.images.astype("<f4").data)
    return digest.hexdigest()
