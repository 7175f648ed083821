"""The records of a source as things that can be told apart and chosen, whatever kind of source it is."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from kind_jax.data.folder import FolderSource
from kind_jax.data.records import RecordSource
from kind_jax.data.sets import MemorySource, Source

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


def labels_of(source: Source) -> Int[np.ndarray, " N"]:
    """The class of each record; -1 of one that cannot be read. A source that does not know them reads every record."""
    if isinstance(source, MemorySource | FolderSource):
        return source.labels
    assert isinstance(source, RecordSource)
    blocks = [range(i, min(i + _BLOCK, len(source))) for i in range(0, len(source), _BLOCK)]
    return np.asarray([label for block in blocks for label in source.labels_of(block)], np.int32)


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
