"""The training state as it lies on devices whose tailors are dealt to shards, and as it is on disk.

Everything with a row for each group, weights, averages and moments, is stored in the order of the groups; on devices it
is in the order of :class:`kind_jax.train.layout.Deal`, with rows that belong to no group where shards are not equal.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from kind_jax.train import rows, sharding
from kind_jax.train.layout import Layout, deal_of
from kind_jax.train.state import TrainState
from kind_jax.train.task import Task


class Dealt:
    """From one order to the other, for a run's state on its mesh; where they are the same, nothing is done."""

    def __init__(self, task: Task, layout: Layout, mesh: Mesh) -> None:
        deal = deal_of(task, layout)
        self._deal = None if deal is None or deal.even else deal
        self._task, self._mesh = task, mesh
        self._compiled: dict[str, Any] = {}  # a run gathers for every checkpoint, and compiles once

    def shapes(self, state: TrainState) -> TrainState:
        """Of the state as it lies on the devices, from ``state`` as it is on disk."""
        return state if self._deal is None else jax.eval_shape(self._dealt, state)

    def deal(self, state: TrainState) -> TrainState:
        """A state in the order of its groups as it lies on the devices."""
        return state if self._deal is None else self._moved("deal", self._dealt, state)

    def gather(self, state: TrainState) -> TrainState:
        """A state as it lies on the devices in the order of its groups."""
        return state if self._deal is None else self._moved("gather", self._gathered, state)

    def _moved(self, name: str, how: Any, state: TrainState) -> TrainState:
        if name not in self._compiled:
            out = sharding.shard_like(jax.eval_shape(how, state), self._mesh, self._task.rules)
            self._compiled[name] = jax.jit(how, out_shardings=out)
        return self._compiled[name](state)

    def _dealt(self, state: TrainState) -> TrainState:
        assert self._deal is not None
        return _of_rows(state, jnp.asarray(self._deal.group_of_row))

    def _gathered(self, state: TrainState) -> TrainState:
        assert self._deal is not None
        return _of_rows(state, jnp.asarray(self._deal.row_of_group))


def _of_rows(state: TrainState, which: Any) -> TrainState:
    return TrainState(
        rows.take_from(state.collections, which), rows.take_from(state.ema, which), rows.take_moments(state.opt, which),
        state.step, state.health, None if state.averaged is None else rows.take(state.averaged, which),
    )  # fmt: skip
