"""Two sources one after the other, as one."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Int32, Int64

from kind_jax.data.bad import Explains
from kind_jax.data.sets import Replaces, Source


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Joined:
    """The records of ``first``, then those of ``second``, each read in its own way."""

    first: Source
    second: Source

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        batch = self.gather([operator.index(index)])
        return {"image": batch["image"][0], "label": batch["label"][0]}

    @property
    def labels(self) -> Int32[np.ndarray, " N"] | None:
        """Labels of all records; None where a source would have to read them."""
        first, second = (getattr(source, "labels", None) for source in (self.first, self.second))
        return None if first is None or second is None else np.concatenate([first, second])

    def gather(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Several records; ``bad`` [B] has the index of each record that could not be read and was replaced, else -1.

        A record takes the place of one of the same source.
        """
        return self.gather_records(indices)[0]

    def gather_records(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[dict[str, np.ndarray], Int64[np.ndarray, " B"]]:
        """As :meth:`gather`, and the index of the record that stands in each row."""
        wanted, begin = np.asarray(indices, np.int64), len(self.first)
        records = wanted.copy()
        batch: dict[str, np.ndarray] = {"bad": np.full(len(wanted), -1, np.int64)}
        for source, rows, start in (
            (self.first, np.flatnonzero(wanted < begin), 0),
            (self.second, np.flatnonzero(wanted >= begin), begin),
        ):
            if not len(rows):
                continue
            if isinstance(source, Replaces):
                found, own = source.gather_records(wanted[rows] - start)
                records[rows] = own + start
            else:
                found = source.gather(wanted[rows] - start)
            for name in ("image", "label"):
                whole = batch.setdefault(name, np.empty((len(wanted), *found[name].shape[1:]), found[name].dtype))
                whole[rows] = found[name]
            if "bad" in found:
                batch["bad"][rows] = np.where(found["bad"] < 0, -1, found["bad"] + start)
        return batch, records

    def explain(self, index: int) -> str:
        """The name of a record and why it cannot be read."""
        begin = len(self.first)
        source, own = (self.first, index) if index < begin else (self.second, index - begin)
        assert isinstance(source, Explains)  # records in memory are never bad
        return source.explain(own)
