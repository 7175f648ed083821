"""What a command says, for programs: with ``--json`` its tables and the places of its results, as one JSON object."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

OPTIONS = {
    "--json": "standard output is one JSON object, in place of text, which goes to standard error",
    "--quiet": "nothing is said but errors and warnings",
}


@dataclasses.dataclass
class Told:
    """How a command speaks, and what it has said so far.

    Attributes:
      json, quiet: whether the options are given.
      headlines: what was done, in a few words each.
      files: where results lie, by what they are.
      tables: title, columns and rows of each, the figures as they are shown.
    """

    json: bool = False
    quiet: bool = False
    headlines: list[str] = dataclasses.field(default_factory=list)
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    tables: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def as_json(self, verb: str, code: int, error: str | None = None) -> str:
        """``error`` is the sentence of a command that was refused."""
        found = {"verb": verb, "code": code, "done": self.headlines, "files": self.files, "tables": self.tables}
        return json.dumps(found if error is None else {"verb": verb, "code": code, "error": error}, ensure_ascii=False)


_now = Told()


def options(args: Sequence[str]) -> tuple[Told, list[str]]:
    """Which of the options are given, and all other arguments."""
    return Told(json="--json" in args, quiet="--quiet" in args), [a for a in args if a not in OPTIONS]


@contextlib.contextmanager
def speaking(told: Told) -> Iterator[None]:
    """Around a command that is to say things as ``told``."""
    global _now
    before, _now = _now, told
    try:
        if not (told.json or told.quiet):
            yield
        elif told.quiet:
            with contextlib.redirect_stdout(_Warnings()):  # pyright: ignore[reportArgumentType]
                yield
        else:
            with contextlib.redirect_stdout(sys.stderr):
                yield
    finally:
        _now = before


class _Warnings(io.TextIOBase):
    """Passes lines that warn on to standard error, and nothing else."""

    def __init__(self) -> None:
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.startswith("warning"):
                print(line, file=sys.stderr)
        return len(text)


def note_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    _now.tables.append({"title": title, "columns": list(header), "rows": [list(row) for row in rows]})


def note_results(headline: str, paths: Mapping[str, Path]) -> None:
    _now.headlines.append(headline)
    _now.files.update({name: str(path) for name, path in paths.items() if path.exists()})
