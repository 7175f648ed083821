"""How far an evaluation or an encoding is: a live bar on a terminal, a few lines in a log file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_QUIET = 10.0  # seconds between lines of a log file


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.{0 if speed >= 10 else 1}f} images/s" if speed else "")


class Count(Protocol):
    """Takes the number of images done, and perhaps a fact to show beside it."""

    def __call__(self, done: int, fact: str = "") -> None: ...


@contextlib.contextmanager
def counting(what: str, total: int | None) -> Iterator[Count]:
    """Yields a function to call with the number of images done, and perhaps a fact to show beside it.

    What was done before the first call is not timed.
    """
    console = Console(file=sys.stdout)
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        counts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
        with Progress(*counts, TextColumn("{task.fields[fact]}"), console=console) as bar:
            task = bar.add_task(what, total=total, fact="")
            yield lambda done, fact="": bar.update(task, completed=done, fact=fact)
        return
    print(f"{what} ...", flush=True)
    began, first, spoken = time.monotonic(), 0, time.monotonic()

    def say(done: int, fact: str = "") -> None:
        nonlocal began, first, spoken
        now = time.monotonic()
        if not first:  # the first batch compiles: it is no measure of speed
            began, first = now, done
        if now - spoken < _QUIET:
            return
        spoken = now
        speed = (done - first) / max(now - began, 1e-9)
        pace = f", {speed:.{0 if speed >= 10 else 1}f} images/s" if speed > 0 else ""
        left = f", {_clock((total - done) / speed)} left" if total and speed > 0 else ""
        more = f", {fact}" if fact else ""
        print(f"{what}: {done}{f' of {total}' if total else ''} images{pace}{left}{more}", flush=True)

    yield say
