"""Ctrl-C and SIGTERM in commands: heard whatever libraries make of them, and nothing half-written is left."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import command_lines
import pytest

from kind_jax import cli, interrupts
from kind_jax.files import atomic_directory
from kind_jax.train import watch  # noqa: F401 - what the tests replace is needed to import it

ROOT = Path(__file__).parents[1]


def swallowed_by_an_import(number):
    """What jaxlib does when Ctrl-C comes while its extension modules are imported."""
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        raise ImportError("Encountered an error while initializing the extension") from None


@pytest.mark.parametrize("raise_", [signal.raise_signal, swallowed_by_an_import])
@pytest.mark.parametrize(
    ("verb", "number", "code"),
    [("export", signal.SIGINT, 130), ("export", signal.SIGTERM, 143), ("train", signal.SIGTERM, 75),
     ("transfer", signal.SIGINT, 75)],
)  # fmt: skip
def test_the_code_says_so_and_nothing_is_left(tmp_path, monkeypatch, capsys, verb, number, code, raise_):
    def run(args):
        with atomic_directory(tmp_path / "out") as folder:
            (folder / "half").write_text("written")
            raise_(number)
        return 0

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: command_lines.verb(run))
    before = signal.getsignal(number)
    assert cli.main([verb]) == code
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before


def test_a_signal_that_a_library_swallowed_stops_the_training_loop(monkeypatch):
    seen = []

    def run(args):
        with contextlib.suppress(KeyboardInterrupt):  # some callback of a library
            signal.raise_signal(signal.SIGTERM)
        seen.extend(interrupts.pending())
        return 0

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: command_lines.verb(run))
    assert cli.main(["export"]) == 0
    assert seen == [signal.SIGTERM]
    assert interrupts.pending() == []  # another run in this process has not been asked to stop


def _catches(pid, number):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux whether a process handles a signal")
def test_a_process_that_starts_ends_with_75(tmp_path):
    """A scheduler that starts again what ended with 75 must not drop a job that was preempted while it started."""
    line = ["train", "--config", ROOT / "chaos" / "config.py", "--workdir", tmp_path / "run"]
    process = subprocess.Popen([sys.executable, "-m", "kind_jax", *line], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not _catches(process.pid, signal.SIGTERM):  # until then it is Python that starts, not the command
        time.sleep(0.02)
    time.sleep(0.5)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    # A callback of a library may have swallowed the signal, and then it is the loop that stops, after its first step.
    begun = (tmp_path / "run" / "checkpoints" / "1").is_dir()
    assert said == ("" if begun else "stopped before a step was begun; the same command starts again\n")
