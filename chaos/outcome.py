"""What a trial found."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one trial.

    Attributes:
      cases: how many things were tried.
      figures: what was counted and measured, as JSON values.
      failures: a sentence for each case that did not go as promised.
    """

    cases: int
    figures: dict[str, Any]
    failures: tuple[str, ...]


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Parts of one trial, whose figures are counts, as one."""
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        counts.update(outcome.figures)
    failures = tuple(failure for outcome in outcomes for failure in outcome.failures)
    return Outcome(cases=sum(outcome.cases for outcome in outcomes), figures=dict(counts), failures=failures)
