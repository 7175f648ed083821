"""Turns: what a task's control does between the rounds of a run."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from kind_jax import partition
from kind_jax.data.sets import Dataset
from kind_jax.train import sharding
from kind_jax.train.state import TrainState
from kind_jax.train.task import Controlled, Metrics, Task


class Rounds:
    """The turns of a run. Figures are read when the next ones come, so that the device never waits for the host."""

    def __init__(self, task: Task, dataset: Dataset, mesh: Mesh) -> None:
        self._control = task.control if isinstance(task, Controlled) else None
        self._ready: tuple[int, Metrics] | None = None
        if self._control is not None:
            self._probe = _placed(self._control.probe(dataset), mesh)
            self._turn = jax.jit(_turn, static_argnums=0, out_shardings=sharding.replicated(mesh))

    def begun(self, state: TrainState, done: int, fixed: partition.Collections) -> TrainState:
        """The state of a run that goes on behind step ``done``: after its first turn, if that is step 0."""
        return state if done else self.turned(state, done, fixed)

    def turned(self, state: TrainState, done: int, fixed: partition.Collections) -> TrainState:
        """The state behind step ``done``, after a turn if one is due."""
        if self._control is None or done % self._control.every:
            return state
        moved, figures = self._turn(self._control, state.collections, self._probe, fixed)
        self._ready = (done, figures)
        return state._replace(collections={**state.collections, **moved})

    def figures(self) -> tuple[int, dict[str, float]] | None:
        """The figures of the last turn and the step behind which it came, once; None if they were read."""
        if self._ready is None:
            return None
        (done, found), self._ready = self._ready, None
        values = {name: float(value) for name, value in jax.device_get(found).items()}
        return done, {name: value for name, value in values.items() if not math.isnan(value)}


def _turn(control: Any, collections: partition.Collections, probe: Any, fixed: partition.Collections) -> Any:
    return control.turn(collections, probe, fixed)


def _placed(batch: Any, mesh: Mesh) -> Any:
    """A batch that every host has whole, split over the devices if it can be."""
    size = len(next(iter(batch.values())))
    split = sharding.batch_sharding(mesh)
    at = split if size % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0 else sharding.replicated(mesh)

    def of(value: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(value.shape, at, functools.partial(_part, value))

    return {name: of(value) for name, value in batch.items()}


def _part(value: np.ndarray, index: Any) -> np.ndarray:
    return value[index]
