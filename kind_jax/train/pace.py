"""How fast a config trains on this machine, found out by a few of its steps."""

from __future__ import annotations

import dataclasses
import time

import jax

from kind_jax.data.sets import Dataset
from kind_jax.train.short import Short
from kind_jax.train.task import Task

STEPS, SECONDS = 40, 8.0  # whichever ends first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds before the first step is done, which compiles, and of every other one."""

    first: float
    step: float

    def steps(self, seconds: float) -> int:
        """How many steps fit ``seconds``."""
        return max(0, int((seconds - self.first) / self.step))


def measure(task: Task, dataset: Dataset) -> Pace:
    """Train for a moment; nothing is kept."""
    config = task.config
    trained = Short(task, lambda count, rate: rate)
    begin = time.perf_counter()
    steps = trained.run(task.init(), dataset, rate=0.0, seed=config.train.seed, steps=STEPS + 1)
    jax.block_until_ready(next(steps)[1])
    first = time.perf_counter() - begin
    begin, done = time.perf_counter(), 0
    for _, _, metrics in steps:
        jax.block_until_ready(metrics)
        done += 1
        if time.perf_counter() - begin > SECONDS:
            break
    return Pace(first=first, step=(time.perf_counter() - begin) / done)
