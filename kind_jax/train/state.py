"""What a training step carries from one call to the next."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from kind_jax import partition
from kind_jax.config import RunConfig
from kind_jax.nn.later import apart, later
from kind_jax.partition import STATS, TAILORS
from kind_jax.train import rows
from kind_jax.train.freeze import check, moving
from kind_jax.train.optimizer import learning_rate, make_optimizer
from kind_jax.train.task import Task, check_task


class Health(NamedTuple):
    """Steps whose loss or gradient was not finite: they change no weight.

    Attributes:
      row: how many in a row, up to the last finished step.
      skipped: how many in all.
    """

    row: Int[Array, ""]
    skipped: Int[Array, ""]


class TrainState(NamedTuple):
    """Weights, their moving average, optimizer state and the number of finished steps.

    Attributes:
      ema: only the leaves that move (statistics among them); a frozen one is its own average. Empty where
        ``train.ema`` is None.
      averaged: the step that each row of the averaged tailor bank is up to date with; None if all of it always is, see
        :mod:`kind_jax.train.rows`.
    """

    collections: partition.Collections
    ema: partition.Collections
    opt: Any
    step: Int[Array, ""]
    health: Health
    averaged: Int[Array, " groups"] | None = None


def start(task: Task, collections: partition.Collections) -> TrainState:
    """The state before the first step, with ``collections`` (arrays or ShapeDtypeStructs) as weights.

    Raises:
      UserError: ``task`` is none, or these are no collections.
    """
    check_task(task)
    partition.check_trees(collections, what="collections")
    config, bank = task.config, task.bank
    tx = make_optimizer(config.optimizer, learning_rate(config.optimizer, config.train.steps))
    # A copy: the average must not share buffers with the weights, which the step donates.
    moved = moving(config.optimizer, collections) | {k: v for k, v in collections.items() if k == STATS}
    ema = {} if config.train.ema is None else jax.tree.map(jnp.copy, moved)
    since = None if bank is None or bank.taken is None else jnp.zeros(bank.groups, jnp.int32)
    none = jnp.zeros((), jnp.int32)
    # Copies: a donated buffer must not be donated twice.
    return TrainState(collections, ema, tx.init(collections), none, Health(jnp.copy(none), jnp.copy(none)), since)


def abstract(task: Task) -> TrainState:
    """Shapes and dtypes of the state; takes no memory.

    Raises:
      UserError: the optimizer's settings do not fit the model, or nothing is trained.
    """
    shapes = task.shapes()
    check(task.config.optimizer, shapes)
    return jax.eval_shape(lambda c: start(task, c), shapes)


def averaged(config: RunConfig, state: TrainState) -> partition.Collections:
    """The weights to sample with: the moving average where there is one."""
    ema = state.ema
    if state.averaged is not None and TAILORS in ema:
        ema = {**ema, TAILORS: up_to_date(config, ema[TAILORS], state.collections, state.averaged, state.step)}
    return partition.overlay(state.collections, ema)


def up_to_date(
    config: RunConfig,
    average: Any,
    collections: partition.Collections,
    since: Int[Array, " rows"],
    step: Int[Array, ""],
) -> Any:
    """The averaged tailors as of ``step``, from averages as of ``since`` and weights that stood still meanwhile."""
    assert config.train.ema is not None
    weights = moving(config.optimizer, {TAILORS: collections[TAILORS]})[TAILORS]
    return rows.caught_up(average, weights, rows.decay_between(config.train.ema, since, step))


def averages_of(config: RunConfig, state: TrainState, used: Int[Array, "*shards R"] | None) -> partition.Collections:
    """The averaged weights with only the rows ``used`` of the bank, up to date; None: with all of them."""
    if used is None or state.averaged is None:
        return partition.overlay(state.collections, state.ema)
    collections, ema = rows.take_from(state.collections, used), rows.take_from(state.ema, used)
    if TAILORS in ema:
        since = rows.take(state.averaged, used)
        ema[TAILORS] = up_to_date(config, ema[TAILORS], collections, since, state.step)
    return partition.overlay(collections, ema)


def take(config: RunConfig, state: TrainState, used: Int[Array, "*shards R"], after: Array) -> TrainState:
    """The state with only the rows ``used`` of everything that has a row for each group, averages up to date.

    They are taken out once ``after`` is there, and all at once: if the new rows of one array were made from the old
    ones of another where these lie, neither array could be changed in place.
    """
    assert state.averaged is not None
    used = later(used, after)
    collections, ema = rows.take_from(state.collections, used), rows.take_from(state.ema, used)
    moments, since = rows.lazy(state.opt), rows.take(state.averaged, used)
    found = rows.take(moments, used), collections[TAILORS], ema.get(TAILORS), since
    moments, collections[TAILORS], average, since = apart(found, after)
    if average is not None:
        ema[TAILORS] = average
    if TAILORS in ema:
        ema[TAILORS] = up_to_date(config, ema[TAILORS], collections, since, state.step)
    return TrainState(collections, ema, rows.with_lazy(state.opt, moments), state.step, state.health, since)


def put(state: TrainState, used: Int[Array, "*shards R"], new: TrainState) -> TrainState:
    """``state`` with the rows ``used`` replaced by ``new``'s, and everything else by ``new``'s."""
    assert state.averaged is not None
    return TrainState(
        collections=rows.put_into(state.collections, used, new.collections),
        ema=rows.put_into(state.ema, used, new.ema),
        opt=rows.put_moments(state.opt, used, new.opt),
        step=new.step,
        health=new.health,
        averaged=rows.put(state.averaged, used, jnp.broadcast_to(new.step, used.size)),
    )
