"""Short trainings in memory: the trainer's step in a loop without a folder, for parts of commands and for studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from kind_jax import partition
from kind_jax.data import grouped, pipeline
from kind_jax.data.sets import Dataset
from kind_jax.train import state as states
from kind_jax.train.state import TrainState
from kind_jax.train.step import make_step
from kind_jax.train.task import Metrics, Task


class Short:
    """One compiled program for trainings of any rate, seed and length.

    Args:
      task: what is trained.
      rate: learning rate by the number of steps that are done, and by what :meth:`run` is given as ``rate``.
    """

    def __init__(self, task: Task, rate: Callable[[Any, Any], Any]) -> None:
        def step(state: TrainState, batch: Any, given: Any, seed: Any, fixed: Any) -> tuple[TrainState, Metrics]:
            return make_step(task, rate=lambda count: rate(count, given), seed=seed)(state, batch, fixed)

        self._task = task
        self._step = jax.jit(step, donate_argnums=0)
        self._start = jax.jit(lambda weights: states.start(task, weights))

    def run(
        self,
        initial: partition.Collections,
        dataset: Dataset,
        *,
        rate: Any,
        seed: int,
        steps: int,
        fixed: partition.Collections | None = None,
    ) -> Iterator[tuple[int, TrainState, Metrics]]:
        """Train, and after every step say its number, the state, which the next step takes over, and the metrics.

        Args:
          initial: the weights of step 0.
          rate: see :class:`Short`.
          fixed: what steps read and do not change; None is what the task gives.
          seed: of the order of the images and of all that is drawn for a step.
        """
        config = self._task.config
        m = config.data.per_class
        grouping = None if m is None else grouped.of_dataset(dataset, m)
        data = pipeline.batches(dataset, batch=config.train.batch, seed=seed, grouping=grouping)
        state = self._start(jax.tree.map(jnp.asarray, initial))
        fixed = jax.tree.map(jnp.asarray, self._task.fixed() if fixed is None else fixed)
        for done in range(1, steps + 1):
            state, metrics = self._step(state, next(data), jnp.float32(rate), jnp.uint32(seed), fixed)
            yield done, state, metrics
