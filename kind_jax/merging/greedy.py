"""Greedy matching: the two most similar groups are joined, again and again (Stoica et al. 2024, section 4).

Each row of similarities knows a bound on its greatest one, so that a merge looks at one number a row, and at whole rows
only where that may be the greatest of all. D: features, N: models.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

_NONE = -np.inf


def groups(
    correlation: Float[np.ndarray, "D D"], models: int, alpha: float | int, beta: float | int
) -> tuple[Int[np.ndarray, " D"], Int[np.ndarray, "merges 2"]]:
    """The first member of each feature's group, and the merges in order.

    Of equal similarities the one decides that stands first in the matrix. A model whose budget of merges within itself
    is spent makes no more, and neither do groups that hold such features; where that leaves nothing to be joined, as
    may happen with three models or more, it is lifted: the published code loses features there.
    """
    count = len(correlation)
    wanted = count // models
    budget = np.full(models, int(((count - wanted) // models) * beta + 1e-4))
    table = _Table(correlation, np.arange(count) // wanted)
    order = np.empty((count - wanted, 2), np.int64)
    for merge in range(count - wanted):
        i, j = table.closest()
        order[merge] = i, j
        owner, other = int(table.owner[i]), int(table.owner[j])
        table.join(i, j, alpha)
        if owner == other:
            budget[owner] -= 1
            if budget[owner] <= 0:
                table.spend(owner)
    return table.first(order), order


class _Table:
    """Similarities of the groups that are left, and a bound on the greatest of each row.

    A merge mostly lowers similarities. A row that has lost its greatest one keeps it as a bound, and is looked through
    again only when no other row has more.

    Attributes:
      owner: the model that a group belongs to: that of its first member.
    """

    def __init__(self, correlation: np.ndarray, owner: np.ndarray) -> None:
        count = len(correlation)
        self._values = correlation + correlation.T  # what was rounded apart would be two similarities
        self._values /= 2
        np.fill_diagonal(self._values, _NONE)
        self.owner = owner.copy()
        # What a group may be joined with, as something to add: 0, or minus infinity.
        self._open = np.zeros(count, self._values.dtype)
        # Models whose budget was spent while a group held features of theirs: no two of the same model are joined.
        self._spent: list[frozenset[int]] = [frozenset()] * count
        self._closed = np.zeros((int(owner.max()) + 1, count), self._values.dtype)
        self._at = np.argmax(self._values, axis=1)
        self._bound = self._values[np.arange(count), self._at]
        self._stale, self._live = np.zeros(count, bool), np.ones(count, bool)

    def closest(self) -> tuple[int, int]:
        """The two groups that are most similar, the first one in front."""
        while True:
            i = int(self._bound.argmax())
            if self._bound[i] == _NONE:  # what was ruled out is all that is left
                self._spent, self._closed[:] = [frozenset()] * len(self._spent), 0.0
                self._open[self._live], self._bound[self._live], self._stale[:] = 0.0, np.inf, True
            elif self._stale[i]:
                self._look(i)
            else:
                return i, int(self._at[i])

    def join(self, i: int, j: int, alpha: float | int) -> None:
        """Group ``i`` takes in group ``j``, which comes behind it."""
        values = self._values
        self._spent[i] |= self._spent[j]
        self._closed[list(self._spent[i]), i] = _NONE
        row = np.minimum(values[i], values[j])
        if alpha > 0:
            row *= values.dtype.type(alpha)
        else:  # without a factor to damp it, a pair is complete
            self._open[i] = _NONE
        row[i] = _NONE
        values[i], values[:, i] = row, row
        self._open[j], self._bound[j], self._live[j] = _NONE, _NONE, False
        np.logical_or(self._stale, (self._at == i) | (self._at == j), out=self._stale)
        # A negative similarity rises when it is damped.
        row = row + self._permitted(i)
        higher = (row > self._bound) | ((row == self._bound) & (i < self._at) & ~self._stale)
        higher &= self._live
        if higher.any():
            self._bound[higher], self._at[higher], self._stale[higher] = row[higher], i, False
        self._bound[i], self._stale[i] = np.inf, True

    def spend(self, model: int) -> None:
        """No more merges within a model."""
        for i in np.flatnonzero(self._live & (self.owner == model)).tolist():
            self._spent[i] |= {model}
            self._closed[model, i] = _NONE
        self._stale[:] = True

    def first(self, order: Int[np.ndarray, "merges 2"]) -> Int[np.ndarray, " D"]:
        """The first member of each feature's group, after these merges."""
        found = np.arange(len(self._live))
        for i, j in order[::-1].tolist():  # later ones first: a group that was taken in has nothing new afterwards
            found[j] = found[i]
        return found

    def _permitted(self, i: int) -> np.ndarray:
        """What to add to the similarities of ``i``: 0 for groups that it may be joined with, or minus infinity."""
        if self._open[i] < 0:
            return np.full_like(self._open, _NONE)
        found = self._open
        for model in self._spent[i]:
            found = found + self._closed[model]
        return found

    def _look(self, i: int) -> None:
        """Find the greatest of a row anew."""
        row = self._values[i] + self._permitted(i)
        self._at[i] = at = int(row.argmax())
        self._bound[i], self._stale[i] = row[at], False
