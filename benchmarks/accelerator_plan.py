"""What ``kind_jax.plan`` predicts of the training steps that are timed, computed by this file as a script.

It compiles for the CPU, which must be JAX's default backend there, so that it needs a process of its own; that one
works beside the checks of numerics, and is waited for before anything is timed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
from accelerator_cases import variants
from accelerator_log import Log, Settings, SkippedError
from accelerator_numerics import on_cpu

from kind_jax import chips
from kind_jax.config import MeshConfig, change
from kind_jax.errors import UserError
from kind_jax.plan import estimate
from kind_jax.plan.compiled import compile_step, fake_devices

MFU = 0.4  # what kind-jax plan assumes unless told otherwise
SHARE = 1 / 3  # of the time that is left, at most, is waited for plans


class Planner:
    """A child that plans all variants of the sizes."""

    def __init__(self, settings: Settings) -> None:
        names = [f"{size}: {name}" for size in settings.sizes for name in variants(size)]
        self._names = [name for name in names if settings.wants(name)]
        self._folder = tempfile.TemporaryDirectory()
        self._lines, self._errors = (Path(self._folder.name) / name for name in ("plans.jsonl", "errors.txt"))
        command = [sys.executable, __file__, jax.devices()[0].device_kind, *self._names]
        # Without Python's buffer, so that a plan is there as soon as it is made.
        environment = on_cpu() | {"PYTHONUNBUFFERED": "1"}
        with self._lines.open("wb") as out, self._errors.open("wb") as errors:
            self._child = subprocess.Popen(command, env=environment, stdout=out, stderr=errors)

    def collect(self, log: Log) -> None:
        """Wait for the child, and record what it has said."""
        try:
            self._child.wait(timeout=log.left() * SHARE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            why: Exception = SkippedError("it was not ready when the time for plans was over")
        else:
            why = UserError(f"the child ended before it: {' '.join(self._errors.read_text().splitlines()[-1:])}")
        plans = {plan.pop("name"): plan for plan in map(json.loads, _whole(self._lines.read_text()))}
        for name in self._names:
            log.case("plan", name, lambda name=name: _given(plans.get(name), why))

    def stop(self) -> None:
        """End the child, whatever it is doing."""
        self._child.kill()
        self._child.wait()
        self._folder.cleanup()


def _whole(text: str) -> list[str]:
    """Lines that were written to their end."""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _given(plan: dict[str, Any] | None, why: Exception) -> dict[str, Any]:
    if plan is None:
        raise why
    if "error" in plan:
        raise UserError(plan["error"])
    return plan


def _plan(name: str, kind: str) -> dict[str, Any]:
    size, _, variant = name.partition(": ")
    config = change(variants(size)[variant](), mesh=MeshConfig(data=1, fsdp=1, tensor=1))
    step = compile_step(config, fake_devices(config.mesh))
    chip = chips.of_kind(kind)
    verdict = None if chip is None else estimate.judge(step, chip, config.train.batch, MFU)
    return {
        "memory_bytes": step.memory, "state_bytes": step.state.total, "temporary_bytes": step.temporary,
        "flops": step.flops, "compile_seconds": step.seconds, "assumed_mfu": MFU,
        "seconds": None if verdict is None else verdict.step_seconds,
        "fits": None if verdict is None else verdict.fits,
    }  # fmt: skip


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(10)  # the numerics beside it go first
    for each in sys.argv[2:]:
        try:
            made = _plan(each, sys.argv[1])
        except Exception as e:
            made = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps({"name": each} | made))
