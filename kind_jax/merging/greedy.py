"""Greedy matching: the two most similar groups are joined, again and again (Stoica et al. 2024, section 4).

Each row of similarities knows its greatest one, so that a merge looks at one number a row, and at whole rows only where
the greatest was of a group that is now another. D: features, N: models.
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
    return table.first, order


class _Table:
    """Similarities of the groups that are left, and the greatest of each row.

    Attributes:
      owner: the model that a group belongs to: that of its first member.
      first: the first member of each feature's group.
    """

    def __init__(self, correlation: np.ndarray, owner: np.ndarray) -> None:
        count = len(correlation)
        self._values = (correlation + correlation.T) / 2  # what was rounded apart would be two similarities
        np.fill_diagonal(self._values, _NONE)
        self.owner, self.first = owner.copy(), np.arange(count)
        self._live, self._open = np.ones(count, bool), np.ones(count, bool)
        # Models whose budget was spent while a group held features of theirs: no two of the same model are joined.
        self._spent = np.zeros((count, int(owner.max()) + 1), bool)
        self._best, self._at = np.empty(count, self._values.dtype), np.empty(count, np.int64)
        self._look(np.arange(count))

    def closest(self) -> tuple[int, int]:
        """The two groups that are most similar, the first one in front."""
        i = int(np.argmax(np.where(self._live, self._best, _NONE)))
        if self._best[i] == _NONE:  # what was ruled out is all that is left
            self._spent[:], self._open[:] = False, True
            self._look(np.flatnonzero(self._live))
            i = int(np.argmax(np.where(self._live, self._best, _NONE)))
        return i, int(self._at[i])

    def join(self, i: int, j: int, alpha: float | int) -> None:
        """Group ``i`` takes in group ``j``."""
        values = self._values
        self.first[self.first == j] = i
        self._spent[i] |= self._spent[j]
        self._live[j] = False
        # Without a factor to damp it, a pair is complete.
        self._open[i] = alpha > 0
        row = (alpha if alpha > 0 else 1.0) * np.minimum(values[i], values[j])
        row = row.astype(values.dtype)
        row[i] = _NONE
        values[i], values[:, i] = row, row
        values[j], values[:, j] = _NONE, _NONE
        stale = self._live & ((self._at == i) | (self._at == j))
        stale[i] = True
        own = self._allowed(i)
        nearer = own & ((row > self._best) | ((row == self._best) & (i < self._at))) & ~stale
        self._best[nearer], self._at[nearer] = row[nearer], i
        self._look(np.flatnonzero(stale))

    def spend(self, model: int) -> None:
        """No more merges within a model."""
        self._spent[self._live & (self.owner == model), model] = True
        self._look(np.flatnonzero(self._live))

    def _allowed(self, i: int) -> np.ndarray:
        """The groups that ``i`` may be joined with."""
        found = self._live & self._open if self._open[i] else np.zeros_like(self._live)
        mine = np.flatnonzero(self._spent[i])
        if len(mine):
            found &= ~self._spent[:, mine].any(axis=1)
        return found

    def _look(self, rows: np.ndarray) -> None:
        """Find the greatest of some rows anew."""
        for i in rows.tolist():
            row = np.where(self._allowed(i), self._values[i], _NONE)
            self._at[i] = at = int(np.argmax(row))
            self._best[i] = row[at]
