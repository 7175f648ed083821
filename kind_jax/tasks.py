"""From the settings of a run to its task."""

from __future__ import annotations

import functools

from kind_jax.config import RunConfig
from kind_jax.kinds import KINDS, load
from kind_jax.train.task import Task


@functools.lru_cache(maxsize=32)
def task_of(config: RunConfig) -> Task:
    """The task of a run with these settings."""
    return load(KINDS[config.task].task)(config)
