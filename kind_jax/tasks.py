"""Which kinds of runs there are; a kind's module is imported when a run of it is."""

from __future__ import annotations

import functools
import importlib

from kind_jax.config import Config
from kind_jax.train.task import Task

_TASKS = {Config: "kind_jax.diffusing.task:DiffusionTask"}


@functools.lru_cache(maxsize=32)
def task_of(config: Config) -> Task:
    """The task of a run with these settings."""
    module, _, name = _TASKS[type(config)].partition(":")
    return getattr(importlib.import_module(module), name)(config)
