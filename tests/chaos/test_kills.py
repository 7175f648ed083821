"""``make chaos`` at small size: a run that is killed, and bits that flip."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = {  # a process that begins again compiles nothing
    "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax-chaos"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}  # fmt: skip


def chaos(*args):
    # A process of its own, since this one has devices and must not fork.
    done = subprocess.run(
        [sys.executable, "-m", "chaos", *map(str, args)], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_killed_modules(tmp_path):
    chaos("--only", "modules", "--kills", "3", "--out", tmp_path)
    assert json.loads((tmp_path / "chaos.json").read_text())["modules"]["failures"] == []


def test_killed_runs_and_flipped_bits(tmp_path):
    chaos("--only", "kills,flips", "--kills", "3", "--flips", "40", "--out", tmp_path)
    record = json.loads((tmp_path / "chaos.json").read_text())
    assert (record["kills"]["cases"], record["flips"]["cases"]) == (3, 40)
    assert record["kills"]["failures"] == record["flips"]["failures"] == []
    assert record["kills"]["figures"]["steps"] > 3  # three kills, each with work between
