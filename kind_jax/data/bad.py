"""Records that cannot be read: replaced, counted, and refused when they are too many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int64

from kind_jax.data.decode import BadImage
from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable

TRIES = 1000  # records in a row; more that cannot be read are no accident
LINES = 20  # said one by one
_Row = TypeVar("_Row")


def read_around(
    indices: Sequence[int] | np.ndarray, records: int, read: Callable[[int], _Row]
) -> tuple[list[_Row], Int64[np.ndarray, " B"]]:
    """Read records, and the next one that can be read (index + 1, + 2, ..., from the end to 0) for one that cannot.

    Args:
      indices: which records.
      records: how many there are.
      read: gives a record by index, or raises :class:`~kind_jax.data.decode.BadImage`.

    Returns:
      The rows, and for each the index of the record that was replaced, -1 where none was.

    Raises:
      UserError: no record can be read among :data:`TRIES`.
    """
    rows, bad = [], []
    for index in map(int, indices):
        row, replaced = _first(index, records, read)
        rows.append(row)
        bad.append(index if replaced else -1)
    return rows, np.asarray(bad, np.int64)


def _first(index: int, records: int, read: Callable[[int], _Row]) -> tuple[_Row, bool]:
    tries, reason = min(records, TRIES), None
    for step in range(tries):
        try:
            return read((index + step) % records), step > 0
        except BadImage as e:
            reason = e
    raise UserError(
        f"None of {tries} records in a row can be read, beginning with number {index} of {records} (of the last one: "
        f"{reason}): look whether data.path is what it should be."
    )


def check_share(count: int, records: int, limit: float, last: Callable[[], str]) -> None:
    """Refuse ``count`` bad records among ``records``.

    Args:
      count: distinct records that cannot be read.
      records: how many there are in all.
      limit: ``data.skip_bad``, the share that is skipped.
      last: gives the name of the last one, and its reason.

    Raises:
      UserError: they are more than that share.
    """
    if count and count / records > limit:
        raise UserError(
            f"data.skip_bad is {limit}, but {count} of the {records} records ({count / records:.2%}) cannot be read; "
            f"the last one: {last()}; remove them, or raise data.skip_bad."
        )


@runtime_checkable
class Explains(Protocol):
    """A source whose records are read when they are asked for."""

    def __len__(self) -> int: ...

    def explain(self, index: int) -> str:
        """The name of a record and why it cannot be read."""
        ...


@runtime_checkable
class HasBad(Protocol):
    """What is needed of :class:`~kind_jax.data.dataset.Dataset`."""

    @property
    def source(self) -> object: ...

    @property
    def bad(self) -> tuple[str, ...]: ...


class BadRecords:
    """What batches say about records that could not be read: each is said once, and too many end the run.

    Of several hosts each counts those of its own part of the batches.

    Attributes:
      count: distinct records so far, those included that were left out when the data set was opened.
    """

    def __init__(self, dataset: HasBad, limit: float, say: Callable[[str], object]) -> None:
        """Begin to count.

        Args:
          dataset: where the batches come from.
          limit: ``data.skip_bad``, the share of its records that may be unreadable.
          say: called with one line for each of the first :data:`LINES`.
        """
        self.count = 0
        self._source, self._limit, self._say = dataset.source, limit, say
        self._seen: set[int] = set()
        for line in dataset.bad:
            self._found(lambda line=line: line)

    def take(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch without its entry ``bad``, whose records are said and counted.

        Raises:
          UserError: more than the limit are bad.
        """
        if "bad" not in batch:
            return batch
        source = self._source
        assert isinstance(source, Explains)
        for index in batch["bad"].tolist():
            if index < 0 or index in self._seen:
                continue
            self._seen.add(index)
            check_share(len(self._seen), len(source), self._limit, lambda index=index: source.explain(index))
            self._found(lambda index=index: source.explain(index))
        return {name: array for name, array in batch.items() if name != "bad"}

    def _found(self, line: Callable[[], str]) -> None:
        self.count += 1
        if self.count <= LINES:
            self._say(f"skipped a record that cannot be read: {printable(line(), 500)}")
        elif self.count == LINES + 1:
            self._say(f"skipped more than {LINES} records that cannot be read; further ones are only counted")
