"""A validation split of the training images, and a fraction of the others: the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from kind_jax.classes import Typed, numbers_of
from kind_jax.data.parts import identities, labels_of, part_of, rule_of, share_of
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
    rows = np.flatnonzero(share_of(dataset, found, share) == (split == "validation"))
    if not len(rows):
        what = "image" if dataset.families is None else "family of images"
        raise UserError(f"data.validation is {share}, but every class has a single {what}, which cannot be held out.")
    rule = {"validation": {"share": share, "rule": rule_of(dataset, found)}}
    return part_of(dataset, rows, **rule, **({"split": split} if split == "validation" else {}))


def among(dataset: Dataset, classes: Sequence[int | str]) -> Dataset:
    """The records of some classes of a training set, whose classes all stay.

    Raises:
      UserError: a class is none, or has no record.
    """
    if identities(dataset.source) is None:
        raise UserError("data.only is given, but this source's records cannot be divided; it must be None.")
    names = dataset.class_names
    typed = [Typed("data.only", (one,)).among(names) if isinstance(one, str) else (one,) for one in classes]
    numbers = numbers_of([number for several in typed for number in several], names, "data.only")
    labels = labels_of(dataset.source)
    if empty := [dataset.class_names[n] for n in numbers if not np.any(labels == n)]:
        raise UserError(f"data.only names the class {empty[0]!r}, which has no training image.")
    rows = np.flatnonzero(np.isin(labels, numbers))
    return part_of(dataset, rows, only=list(numbers))


def fraction(dataset: Dataset, share: float) -> Dataset:
    """A share of the records of each class of a training set, at least one; a smaller share is part of a larger one.

    Raises:
      UserError: the records cannot be divided.
    """
    found = identities(dataset.source)
    if found is None:
        raise UserError(f"data.fraction is {share}, but this source's records cannot be divided; it must be 1.")
    rows = np.flatnonzero(share_of(dataset, found, share, leave=0))
    return part_of(dataset, rows, fraction={"share": share, "rule": rule_of(dataset, found)})
