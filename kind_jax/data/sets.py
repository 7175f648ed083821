"""What a data set is: records that can be read in any order, and what is known about them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import numpy as np
from jaxtyping import Float, Int32, Int64

from kind_jax.data.latent_files import Index

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


@runtime_checkable
class Replaces(Protocol):
    """A source that reads records when they are asked for, and others in the place of those that cannot be read."""

    def gather_records(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[dict[str, np.ndarray], Int64[np.ndarray, " B"]]:
        """What ``gather`` gives, and the index of the record that stands in each row."""
        ...


@runtime_checkable
class Draws(Protocol):
    """A source that draws what a training batch has of its records, instead of giving the same every time."""

    def draw(self, indices: Sequence[int] | np.ndarray, *, seed: int, first: int, flip: bool) -> dict[str, np.ndarray]:
        """As ``gather``, for records that stand in the global stream from position ``first`` on.

        Args:
          flip: whether half of the images are mirrored.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """One split of a data set.

    Attributes:
      source: the records.
      class_names: name of each label, after the selection, in the order of ``data.classes``.
      all_names: names of all classes of the data set, before the selection.
      image_shape: (H, W, C).
      fingerprint: what identifies the records and their order, as JSON values. Its ``content`` is the SHA-256 of the
        decoded records of a set in memory, and only the sizes of the record files of a larger one: reading those whole
        would delay every start. That of a folder is the SHA-256 of all paths and sizes, that of latents of their
        files' checksums.
      bad: a line about each record that was left out because it cannot be read.
      others: files of a folder that were left out because they are no images by their names.
      beside: an image that was left out because it lies beside the folders of the classes; None where there is none.
      flip: whether training batches mirror half of the images.
      latents: what is said about latents where the images are latents; None where they are pixels.
      columns: what records have beside their image and label: arrays with a row for each, in order; a batch gets those
        of its records. Where a record that cannot be read is replaced, these are the replacement's. Not of latents.
      captions: texts about each record, one or more, the first of which is the main one; None where there are none.
      families: number of the family of each record, where there are families: records so alike that divisions of the
        data set (``data.validation``, ``data.fraction``) never part them.
      synthetic: records of each class that ``data.mix`` has added behind the real ones; empty where there is none.
    """

    source: Source
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    fingerprint: dict[str, Any]
    bad: tuple[str, ...] = ()
    others: int = 0
    beside: str | None = None
    flip: bool = False
    latents: Index | None = None
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    all_names: tuple[str, ...] = ()
    synthetic: tuple[int, ...] = ()
    captions: tuple[tuple[str, ...], ...] | None = None
    families: Int64[np.ndarray, " N"] | None = None

    @property
    def counts(self) -> tuple[int, ...] | None:
        """Records of each class; None where the source would have to read all of them to tell."""
        labels = getattr(self.source, "labels", None)
        if labels is None:
            return None
        return tuple(np.bincount(np.asarray(labels), minlength=len(self.class_names)).tolist())


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

    def sha256(self) -> str:
        """SHA-256 of the decoded records.

        Not of the record files: protobuf orders a record's fields at random in each process, so the same data set
        prepared twice, say on two hosts, gives files that differ.
        """
        digest = hashlib.sha256(self.labels.astype("<i4").tobytes())
        digest.update(self.images.astype("<f4").data)
        return digest.hexdigest()


def gathered(source: Source, indices: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Several records, and which they are: the next that can be read stand in for those that cannot."""
    if isinstance(source, Replaces):
        return source.gather_records(indices)
    return source.gather(indices), np.asarray(indices)
