"""Races: steps of several contestants, interleaved in one process, reported as ratios.

The speed of a shared machine drifts by tens of percent within minutes. What is compared runs within the same seconds,
and a ratio is taken within each round before anything is averaged, so that a drift cancels.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """Something that is timed.

    Attributes:
      step: does one step and returns when it is finished (it blocks on the device).
      compile_seconds: time to trace and compile it; None where nothing is compiled.
      temporary_bytes: memory that the compiled program takes beside its arguments and results; None where unknown.
      total_bytes: that and the arguments and results, what these share counted once.
    """

    name: str
    step: Callable[[], Any]
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    total_bytes: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratio:
    """Median, quartiles and minimum of the rounds' ratios."""

    median: float
    low: float
    high: float
    minimum: float

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Ratio:
        low, median, high = (float(q) for q in np.percentile(values, (25, 50, 75)))
        return cls(median=median, low=low, high=high, minimum=float(np.min(values)))

    @classmethod
    def exact(cls, value: float) -> Ratio:
        """A ratio that does not vary from round to round, like one of memory."""
        return cls(median=value, low=value, high=value, minimum=value)

    def __str__(self) -> str:
        spread = "" if self.low == self.high else f" ({self.low:.3f} to {self.high:.3f})"
        return f"{self.median:.3f}{spread}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the summary: what is divided by what, the ratio, and the most it should be."""

    what: str
    ratio: Ratio
    target: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What a measure found.

    Attributes:
      sizes: the settings of the models that raced.
      details: of each contestant, for the JSON file.
      skipped: a sentence saying why there are no rows.
    """

    rows: tuple[Row, ...] = ()
    sizes: dict[str, Any] = dataclasses.field(default_factory=dict)
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    skipped: str | None = None


@dataclasses.dataclass(frozen=True)
class Race:
    """Seconds of a step in each round, by contestant."""

    contestants: dict[str, Contestant]
    seconds: dict[str, np.ndarray]

    def ratio(self, name: str, base: str) -> Ratio:
        """Time of ``name`` divided by that of ``base`` in the same round."""
        return Ratio.of(self.seconds[name] / self.seconds[base])

    def memory(self, name: str, base: str, *, total: bool = False) -> Ratio | None:
        """Temporary or total memory of ``name`` divided by that of ``base``; None where the platform does not tell."""
        field = "total_bytes" if total else "temporary_bytes"
        ours, theirs = (getattr(self.contestants[n], field) for n in (name, base))
        return Ratio.exact(ours / theirs) if ours is not None and theirs else None

    def details(self) -> dict[str, Any]:
        """What there is to say about each contestant alone; its seconds mean something on this machine only."""
        return {
            name: {
                "median_seconds": float(np.median(self.seconds[name])),
                "compile_seconds": contestant.compile_seconds,
                "temporary_bytes": contestant.temporary_bytes,
                "total_bytes": contestant.total_bytes,
            }
            for name, contestant in self.contestants.items()
        }


def race(
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    steps: int = 1,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> Race:
    """Run ``rounds`` rounds in each of which every contestant takes one turn of ``steps`` steps.

    The order rotates by one in each round, so that nobody always follows the same rival's caches and heat.
    """
    for contestant in contestants:
        for _ in range(warmup):
            contestant.step()
    seconds: dict[str, list[float]] = {c.name: [] for c in contestants}
    for turn in range(rounds):
        first = turn % len(contestants)
        for contestant in (*contestants[first:], *contestants[:first]):
            begin = clock()
            for _ in range(steps):
                contestant.step()
            seconds[contestant.name].append((clock() - begin) / steps)
    return Race({c.name: c for c in contestants}, {name: np.array(s) for name, s in seconds.items()})
