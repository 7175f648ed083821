"""What becomes of each case on an accelerator: one JSON file, written anew after every case."""

from __future__ import annotations

import dataclasses
import gc
import json
import re
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from kind_jax.errors import UserError
from kind_jax.files import atomic_write_text

Status = Literal["ok", "wrong", "failed", "out of memory", "skipped", "not applicable"]
BAD = ("wrong", "failed")
"""What makes the whole run fail; a case that does not fit into memory, or for which no time was left, does not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how thoroughly.

    Attributes:
      sizes: of the models that are timed.
      rounds: of a race.
      steps: that a contestant takes in a round, one after another without waiting in between.
      cases: a regular expression that the names of cases must match somewhere.
    """

    sizes: tuple[str, ...]
    rounds: int
    steps: int
    cases: str = ""

    def wants(self, name: str) -> bool:
        """Whether a case of this name is to be made."""
        return re.search(self.cases, name) is not None


class SkippedError(Exception):
    """A case that cannot be measured here, with the reason."""


class NotApplicableError(Exception):
    """A case that has no meaning on this machine, with the reason."""


class WrongError(Exception):
    """A check that failed.

    Args:
      reason: one sentence.
      figures: what was found all the same.
    """

    def __init__(self, reason: str, figures: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.figures = figures or {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the results.

    Attributes:
      note: why the status is what it is, where it is not ``ok``.
      seconds: wall time of the whole case, compilation included.
      figures: what was found; their names have the units.
    """

    section: str
    name: str
    status: Status
    note: str = ""
    seconds: float = 0.0
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)


class Log:
    """All cases so far, in a file.

    Args:
      out: the JSON file.
      header: what is said of the machine and the settings.
      minutes: time budget, after which cases are recorded as skipped.
      cases: earlier ones, which new ones of the same section and name replace.
    """

    def __init__(
        self,
        out: Path,
        header: dict[str, Any],
        minutes: float,
        cases: list[Case],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out, self._header, self._minutes, self._clock = out, header, minutes, clock
        self._begin = clock()
        self._cases = {(case.section, case.name): case for case in cases}
        self.made: list[Case] = []

    def __iter__(self) -> Iterator[Case]:
        return iter(self._cases.values())

    def find(self, section: str, name: str) -> Case | None:
        """The case of this name that has figures."""
        case = self._cases.get((section, name))
        return case if case is not None and case.figures else None

    def left(self) -> float:
        """Seconds of the budget that are left; 0 when it is spent."""
        return max(self._minutes * 60 - (self._clock() - self._begin), 0.0)

    def case(self, section: str, name: str, compute: Callable[[], dict[str, Any]]) -> Case:
        """Compute the figures of a case, and write down what became of it, whatever that is."""
        begin = self._clock()
        if not self.left():
            made = Case(
                section=section,
                name=name,
                status="skipped",
                note=f"the {self._minutes:g} minutes of --minutes are over",
            )
        else:
            print(f"{section}: {name} ...", flush=True)
            made = _made(section, name, compute)
            made = dataclasses.replace(made, seconds=self._clock() - begin)
        gc.collect()  # arrays of a case that failed are held by its frames
        self._cases.pop((section, name), None)
        self._cases[section, name] = made
        self.made.append(made)
        note = f": {made.note}" if made.note else ""
        print(f"{section}: {name}: {made.status}{note} ({made.seconds:.0f} s)", flush=True)
        self.write()
        return made

    def record(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        spent = self._clock() - self._begin
        return {**self._header, "seconds": spent, "cases": [dataclasses.asdict(case) for case in self]}

    def write(self) -> None:
        """Bring the file up to date."""
        atomic_write_text(self._out, json.dumps(self.record(), indent=1) + "\n")


def _made(section: str, name: str, compute: Callable[[], dict[str, Any]]) -> Case:
    try:
        return Case(section=section, name=name, status="ok", figures=compute())
    except SkippedError as e:
        return Case(section=section, name=name, status="skipped", note=str(e))
    except NotApplicableError as e:
        return Case(section=section, name=name, status="not applicable", note=str(e))
    except WrongError as e:
        return Case(section=section, name=name, status="wrong", note=str(e), figures=e.figures)
    except Exception as e:
        # Whatever it is, the other cases are worth having.
        status: Status = "out of memory" if is_out_of_memory(e) else "failed"
        if status == "failed" and not isinstance(e, UserError):
            traceback.print_exc()
        return Case(section=section, name=name, status=status, note=_first_line(e))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had too little memory: XLA's, PyTorch's and Python's ways of saying so."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "resource_exhausted" in text or "out of memory" in text


def _first_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    name = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{name}{text if len(text) <= 300 else f'{text[:300]}…'}"


def read(path: Path) -> dict[str, Any]:
    """An earlier record.

    Raises:
      UserError: it is damaged, or another kind of file.
    """
    try:
        record = json.loads(path.read_bytes())
        record["cases"] = [Case(**case) for case in record["cases"]]
        return record
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} cannot be added to, it is no record of this script: {type(e).__name__} {e}.") from e
