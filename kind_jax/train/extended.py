"""A run that becomes longer, or goes on at other rates: what was changed, and at which step.

Steps are counted from the run's beginning, and the schedule is the one of the new settings at that count. The
optimizer's state stays. Whatever else a training depends on must be what it was (``config.roles.EXTEND``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kind_jax.config import RunConfig
from kind_jax.config.roles import EXTEND, RESUME, compare
from kind_jax.files import atomic_write_text
from kind_jax.train.run import load_config
from kind_jax.untrusted import documents
from kind_jax.untrusted.regular import read_small
from kind_jax.untrusted.text import printable

FILE = "extended.jsonl"
_LIMIT = 1 << 20  # bytes


def record(directory: Path, config: RunConfig, step: int) -> list[str]:
    """Note in the run's folder what ``config`` changes of the saved one from ``step`` on; returns a remark about it."""
    changes = compare(load_config(directory), config, RESUME - EXTEND)
    if not changes:
        return [f"nothing is extended: {directory} has these settings already"]
    entry = {"step": step, "changed": {each.name: [each.before, each.now] for each in changes}}
    before = _lines(directory)
    if before[-1:] != [line := json.dumps(entry)]:  # a run that was killed here notes it once
        atomic_write_text(directory / FILE, "".join(f"{each}\n" for each in (*before, line)))
    return [f"extended from step {step} on: {'; '.join(map(str, changes))}"]


def entries(directory: Path) -> list[dict[str, Any]]:
    """What was changed of a run, in order: each with ``step`` and ``changed``, {setting: [before, now]}.

    Raises:
      UserError: the file is damaged.
    """
    return [documents.parse(line.encode(), str(directory / FILE)) for line in _lines(directory)]


def told(directory: Path) -> list[str]:
    """A line about each of :func:`entries`."""
    return [
        printable(f"extended at step {each['step']}: " + "; ".join(
            f"{name} was {before!r}, now {now!r}" for name, (before, now) in each["changed"].items()
        ), 500)
        for each in entries(directory)
    ]  # fmt: skip


def _lines(directory: Path) -> list[str]:
    path = directory / FILE
    return read_small(path, _LIMIT).decode().splitlines() if path.is_file() else []
