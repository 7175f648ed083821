"""A validation split of the training images, and a fraction of the others: the same on every machine."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from kind_jax.data.least import least
from kind_jax.data.parts import identities, only
from kind_jax.data.sets import Dataset
from kind_jax.errors import UserError


def divide(dataset: Dataset, share: float, split: Literal["train", "validation"]) -> Dataset:
    """One of the two parts of a training set.

    Raises:
      UserError: a part is empty, or the records cannot be divided.
    """
    found = identities(dataset.source)
    if found is None:
        raise UserError(f"data.validation is {share}, but this source's records cannot be divided; it must be 0.")
    rows = np.flatnonzero(least(found.digests, found.labels, share) == (split == "validation"))
    if not len(rows):
        raise UserError(f"data.validation is {share}, but every class has a single image, which cannot be held out.")
    fingerprint = {**dataset.fingerprint, "records": len(rows), "validation": {"share": share, "rule": found.rule}}
    fingerprint |= {"split": split} if split == "validation" else {}
    return dataclasses.replace(dataset, source=only(dataset.source, rows), fingerprint=fingerprint)


def fraction(dataset: Dataset, share: float) -> Dataset:
    """A share of the records of each class of a training set, at least one; a smaller share is part of a larger one.

    Raises:
      UserError: the records cannot be divided.
    """
    found = identities(dataset.source)
    if found is None:
        raise UserError(f"data.fraction is {share}, but this source's records cannot be divided; it must be 1.")
    rows = np.flatnonzero(least(found.digests, found.labels, share, leave=0))
    fingerprint = {**dataset.fingerprint, "records": len(rows), "fraction": {"share": share, "rule": found.rule}}
    return dataclasses.replace(dataset, source=only(dataset.source, rows), fingerprint=fingerprint)
