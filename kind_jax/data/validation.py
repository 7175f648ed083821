"""A validation split of the training images, the same on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Literal

import numpy as np

from kind_jax.data.folder import FolderSource
from kind_jax.data.least import least
from kind_jax.data.records import RecordSource
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.errors import UserError

_RULE = "of each class the records with the least SHA-256 of {}"


def divide(dataset: Dataset, share: float, split: Literal["train", "validation"]) -> Dataset:
    """One of the two parts of a training set.

    Raises:
      UserError: a part is empty, or the records cannot be divided.
    """
    source, rule = dataset.source, _RULE
    if isinstance(source, MemorySource):
        digests, rule = (
            [hashlib.sha256(image.tobytes()).digest() for image in source.images],
            rule.format("their pixels"),
        )
        rows = np.flatnonzero(least(digests, source.labels, share) == (split == "validation"))
        part = MemorySource(images=source.images[rows], labels=source.labels[rows])
    elif isinstance(source, FolderSource):
        digests, rule = (
            [hashlib.sha256(source.name(i)).digest() for i in range(len(source))],
            rule.format("their paths"),
        )
        rows = np.flatnonzero(least(digests, source.labels, share) == (split == "validation"))
        part = source.only(rows)
    elif isinstance(source, RecordSource):  # whose labels would have to be read one by one: all classes together
        keep = np.arange(len(source), dtype=np.int32) if source.keep is None else source.keep
        digests = [hashlib.sha256(int(number).to_bytes(8, "little")).digest() for number in keep]
        rows = np.flatnonzero(least(digests, np.zeros(len(keep), np.int32), share) == (split == "validation"))
        part, rule = dataclasses.replace(source, keep=keep[rows]), "the records with the least SHA-256 of their numbers"
    else:
        raise UserError(f"data.validation is {share}, but this source's records cannot be divided; it must be 0.")
    if not len(part):
        raise UserError(f"data.validation is {share}, but every class has a single image, which cannot be held out.")
    fingerprint = {**dataset.fingerprint, "records": len(part), "validation": {"share": share, "rule": rule}}
    fingerprint |= {"split": split} if split == "validation" else {}
    return dataclasses.replace(dataset, source=part, fingerprint=fingerprint)
