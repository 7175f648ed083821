"""What training a network as modules has cost: block-epochs, FLOPs and time are three different things."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kind_jax.assembling import cuts
from kind_jax.assembling.config import ClassifierModuleRun, DiffusionModuleRun
from kind_jax.assembling.project import Progress, seconds_in_steps
from kind_jax.config import RunConfig
from kind_jax.tasks import task_of
from kind_jax.train import history
from kind_jax.train.metrics import FILE_NAME, read_metrics
from kind_jax.train.run import load_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one run.

    Attributes:
      block_images: blocks times images that went through them, frozen blocks included; divided by the images of the
        data set, block-epochs.
      flops: of its steps; frozen blocks have no weight gradients, and those before the module no backward pass.
      seconds: in steps, as they were logged.
    """

    steps: int
    block_images: float
    flops: float
    seconds: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(Cost)})


NOTHING = Cost(steps=0, block_images=0.0, flops=0.0, seconds=0.0)


def of_run(config: RunConfig, steps: int, lines: Sequence[dict[str, Any]]) -> Cost:
    """Of a run of any kind that has taken this many steps."""
    if isinstance(config, ClassifierModuleRun | DiffusionModuleRun):
        blocks = sum(config.module.hybrid)
    else:
        blocks = cuts.blocks(config.model)  # pyright: ignore[reportAttributeAccessIssue]
    return Cost(
        steps=steps, block_images=float(blocks * steps * config.train.batch), flops=task_of(config).flops() * steps,
        seconds=seconds_in_steps(lines),
    )  # fmt: skip


def of_folder(folder: Path) -> Cost | None:
    """Of the run in a folder; None if there is none."""
    if not (folder / "config.json").is_file():
        return None
    steps = max(history.steps(folder / "checkpoints"), default=0)
    lines = read_metrics(folder / FILE_NAME) if (folder / FILE_NAME).is_file() else []
    return of_run(load_config(folder), steps, lines)


def of_module(run: Progress) -> Cost:
    """Of a module's run."""
    return NOTHING if run.config is None else of_run(run.config, run.step, run.lines)
