"""A run whose folder is taken, full, read-only, moved or gone, and a run that is asked to stop."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from chaos import children
from chaos.outcome import Outcome
from kind_jax.train import history

CONFIG = Path(__file__).with_name("config.py")


class TroubleError(Exception):
    """Something that did not go as promised."""


class Run:
    """A run in ``directory`` that is started and watched."""

    def __init__(self, directory: Path, log: Path) -> None:
        self.directory, self.log, self.pid = directory, log, 0

    def start(self, steps: int = 1, *more: object) -> None:
        """Start it, and wait until it has logged some steps and saved once."""
        self.log.unlink(missing_ok=True)
        self.pid = children.command(self._line(*more), self.log)
        deadline = time.monotonic() + 120
        while self.said().count("\nstep ") < steps or not history.steps(self.directory / "checkpoints"):
            if time.monotonic() > deadline or os.waitpid(self.pid, os.WNOHANG)[0]:
                raise TroubleError(f"the run did not get going: {self.said()[-300:]}")
            time.sleep(0.01)

    def _line(self, *more: object) -> list[object]:
        return ["train", "--config", CONFIG, "--workdir", self.directory, *more]

    def said(self) -> str:
        return "\n" + (self.log.read_text(errors="replace") if self.log.exists() else "")

    def end(self, code: int, sentence: str) -> None:
        """Wait for its end, which must be with this exit code and this in its last line."""
        found = children.wait(self.pid, 60)
        said = self.said()
        if found != code or sentence not in said.strip().splitlines()[-1] or "Traceback" in said:
            raise TroubleError(f"it ended with {found} and {said[-500:]!r}, but it must be {code} and {sentence!r}")

    def goes_on(self) -> None:
        """The newest checkpoint is good, and the same command continues from it."""
        found = history.latest_good(self.directory / "checkpoints")
        if found.step is None or found.refused:
            raise TroubleError(f"no checkpoint is left, or the newest is damaged: {found.refused}")
        code, said = children.run(self._line("--stop-after", found.step + 2), self.log)
        if code or f"resuming {self.directory} at step {found.step}" not in said:
            raise TroubleError(f"after step {found.step} the same command ended with {code}: {said[-300:]!r}")


def trial(scratch: Path) -> Outcome:
    """Each trouble once."""
    failures, told = [], {}
    for name, trouble in TROUBLES.items():
        run = Run(scratch / name / "run", scratch / f"{name}.txt")
        run.directory.parent.mkdir(parents=True)
        try:
            trouble(run)
            told[name] = "as promised"
        except TroubleError as e:
            failures.append(f"{name}: {e}")
            told[name] = "failed"
        except PermissionError:
            told[name] = "not tried: it takes the right to mount"
    return Outcome(cases=len(TROUBLES), figures=told, failures=tuple(failures))


def _two_runs(run: Run) -> None:
    run.start()
    second = Run(run.directory, run.log.with_suffix(".second"))
    second.pid = children.command(second._line(), second.log)
    second.end(2, f"is in use by process {run.pid} on ")
    os.kill(run.pid, signal.SIGTERM)
    children.wait(run.pid)
    run.goes_on()


def _asked_to_stop(run: Run) -> None:
    run.start(4)
    os.kill(run.pid, signal.SIGINT)
    if (code := children.wait(run.pid, 60)) != 75 or "interrupted: saved step" not in run.said():
        raise TroubleError(f"SIGINT ended it with {code}: {run.said()[-300:]!r}")
    run.goes_on()


def _asked_twice(run: Run) -> None:
    run.start(4)
    os.kill(run.pid, signal.SIGTERM)
    time.sleep(0.001)
    os.kill(run.pid, signal.SIGTERM)
    begun = time.monotonic()
    code = children.wait(run.pid, 60)
    if code not in (-signal.SIGTERM, 75):  # 75: it had saved before the second came
        raise TroubleError(f"the second SIGTERM ended it with {code}")
    if code != 75 and time.monotonic() - begun > 1:
        raise TroubleError("the second SIGTERM did not end it at once")
    run.goes_on()


def _moved_away(run: Run) -> None:
    run.start(4)
    run.directory.rename(run.directory.with_name("elsewhere"))
    run.end(2, "was removed, moved or replaced while the run was going on")
    if run.directory.exists():
        raise TroubleError(f"a new folder was made: {list(run.directory.rglob('*'))[:5]}")
    run.directory.with_name("elsewhere").rename(run.directory)
    run.goes_on()


def _removed(run: Run) -> None:
    run.start(4)
    shutil.rmtree(run.directory, ignore_errors=True)
    run.end(2, "was removed, moved or replaced while the run was going on")


def _full_disk(run: Run) -> None:
    with _mounted(run):
        run.start()
        filler = run.directory.parent / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        run.end(2, "No space left on device")
        filler.unlink()
        run.goes_on()


def _read_only(run: Run) -> None:
    with _mounted(run):
        run.start()
        os.kill(run.pid, signal.SIGTERM)  # files that are open for writing keep a file system from turning read-only
        children.wait(run.pid)
        before = history.steps(run.directory / "checkpoints")
        _remount(run, "ro")
        second = Run(run.directory, run.log.with_suffix(".second"))
        second.pid = children.command(second._line(), second.log)
        second.end(2, "Read-only file system")
        _remount(run, "rw")
        if history.steps(run.directory / "checkpoints") != before:
            raise TroubleError("checkpoints changed on a read-only file system")
        run.goes_on()


@contextlib.contextmanager
def _mounted(run: Run) -> Iterator[None]:
    """A file system in memory in place of the folder that the run lies in."""
    folder = run.directory.parent
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], check=False, capture_output=True
    ).returncode:
        raise PermissionError
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _remount(run: Run, options: str) -> None:
    if subprocess.run(["mount", "-o", f"remount,{options}", run.directory.parent], check=False).returncode:
        raise TroubleError(f"the file system could not be remounted with {options}")


TROUBLES: dict[str, Callable[[Run], None]] = {
    "two_runs": _two_runs,
    "asked_to_stop": _asked_to_stop,
    "asked_twice": _asked_twice,
    "moved_away": _moved_away,
    "removed": _removed,
    "full_disk": _full_disk,
    "read_only": _read_only,
}
