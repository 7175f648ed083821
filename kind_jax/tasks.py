"""From the settings of a run to its task."""

from __future__ import annotations

import functools

from kind_jax.config import RunConfig
from kind_jax.config.check import require
from kind_jax.kinds import KINDS, load
from kind_jax.train.task import Task


def task_of(config: RunConfig) -> Task:
    """The task of a run with these settings.

    Raises:
      UserError: they are not the settings of a run.
    """
    require(isinstance(config, RunConfig), "config", config, "the settings of a run, as kj.preset gives them")
    return _task_of(config)


@functools.lru_cache(maxsize=32)
def _task_of(config: RunConfig) -> Task:
    return load(KINDS[config.task].task)(config)
