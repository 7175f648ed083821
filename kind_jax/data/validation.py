"""A validation split of the training images, and a fraction of the others: the same on every machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from kind_jax.classes import Typed, numbers_of
from kind_jax.data.least import least
from kind_jax.data.parts import identities, labels_of, only
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


def among(dataset: Dataset, classes: Sequence[int | str]) -> Dataset:
    """The records of some classes of a training set, whose classes all stay.

    Raises:
      UserError: a class is none, or has no record.
    """
    names = dataset.class_names
    typed = [Typed("data.only", (one,)).among(names) if isinstance(one, str) else (one,) for one in classes]
    numbers = numbers_of([number for several in typed for number in several], names, "data.only")
    source = dataset.source
    labels = labels_of(source)
    if empty := [dataset.class_names[n] for n in numbers if not np.any(labels == n)]:
        raise UserError(f"data.only names the class {empty[0]!r}, which has no training image.")
    rows = np.flatnonzero(np.isin(labels, numbers))
    fingerprint = {**dataset.fingerprint, "records": len(rows), "only": list(numbers)}
    return dataclasses.replace(dataset, source=only(source, rows), fingerprint=fingerprint)


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
