"""What a trial found."""

from __future__ import annotations

import dataclasses
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
