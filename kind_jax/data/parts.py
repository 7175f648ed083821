"""The records of a source as things that can be told apart and chosen, whatever kind of source it is."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

from kind_jax.data.folder import FolderSource
from kind_jax.data.least import least
from kind_jax.data.records import RecordSource
from kind_jax.data.sets import Dataset, MemorySource, Source

_BLOCK = 256  # records read at a time


class Identities(NamedTuple):
    """What the choice of records goes by.

    Attributes:
      digests: SHA-256 of each record.
      labels: class of each record, or 0 where all classes are taken together.
      rule: what is chosen by them, in words.
    """

    digests: list[bytes]
    labels: Int32[np.ndarray, " N"]
    rule: str


_RULE = "of each class the records with the least SHA-256 of {}"


def identities(source: Source) -> Identities | None:
    """What a share of the records can be chosen by; None for sources that cannot be divided."""
    if isinstance(source, MemorySource):
        digests = [hashlib.sha256(image.tobytes()).digest() for image in source.images]
        return Identities(digests, source.labels, _RULE.format("their pixels"))
    if isinstance(source, FolderSource):
        digests = [hashlib.sha256(source.name(i)).digest() for i in range(len(source))]
        return Identities(digests, source.labels, _RULE.format("their paths"))
    if isinstance(source, RecordSource):  # whose labels would have to be read one by one: all classes together
        digests = [hashlib.sha256(int(number).to_bytes(8, "little")).digest() for number in _kept(source)]
        rule = "the records with the least SHA-256 of their numbers"
        return Identities(digests, np.zeros(len(digests), np.int32), rule)
    return None


def share_of(dataset: Dataset, found: Identities, share: float, *, leave: int = 1) -> Bool[np.ndarray, " N"]:
    """Which records are a share of each class (:func:`least`); of a data set with families, a share of these.

    A family has the least digest and the least label of its records. All of it is chosen, or nothing of it.
    """
    if dataset.families is None:
        return least(found.digests, found.labels, share, leave=leave)
    _, family = np.unique(dataset.families, return_inverse=True)
    count = int(family.max()) + 1
    labels = np.full(count, np.iinfo(np.int32).max, np.int32)
    np.minimum.at(labels, family, found.labels)
    digests: list[bytes] = [b""] * count
    for number, digest in zip(family.tolist(), found.digests, strict=True):
        digests[number] = min(digests[number] or digest, digest)
    return least(digests, labels, share, leave=leave)[family]


def rule_of(dataset: Dataset, found: Identities) -> str:
    """What :func:`share_of` goes by, in words."""
    return found.rule if dataset.families is None else f"{found.rule}, whole families by the least of theirs"


def part_of(dataset: Dataset, rows: Int[np.ndarray, " M"], **fingerprint: object) -> Dataset:
    """The records ``rows`` with what is known of them, in that order; ``fingerprint`` is added to the data set's."""
    return dataclasses.replace(
        dataset,
        source=only(dataset.source, rows),
        captions=None if dataset.captions is None else tuple(dataset.captions[row] for row in rows.tolist()),
        families=None if dataset.families is None else dataset.families[rows],
        fingerprint={**dataset.fingerprint, "records": len(rows), **fingerprint},
    )


def labels_of(source: Source) -> Int[np.ndarray, " N"]:
    """The class of each record; -1 of one that cannot be read. A source that does not know them reads every record."""
    if isinstance(source, MemorySource | FolderSource):
        return source.labels
    blocks = [range(i, min(i + _BLOCK, len(source))) for i in range(0, len(source), _BLOCK)]
    if isinstance(source, RecordSource):
        return np.asarray([label for block in blocks for label in source.labels_of(block)], np.int32)
    return np.concatenate([source.gather(block)["label"] for block in blocks])


def only(source: Source, rows: Int[np.ndarray, " M"]) -> Source:
    """The records ``rows`` of a source that has :func:`identities`, in that order."""
    if isinstance(source, MemorySource):
        return MemorySource(images=source.images[rows], labels=source.labels[rows])
    if isinstance(source, FolderSource):
        return source.only(rows)
    assert isinstance(source, RecordSource)
    return dataclasses.replace(source, keep=_kept(source)[rows])


def _kept(source: RecordSource) -> Int32[np.ndarray, " N"]:
    return np.arange(len(source), dtype=np.int32) if source.keep is None else source.keep
