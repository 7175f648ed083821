"""The training step: a pure function of state and batch.

Dimensions: B images of a step, A micro-batches, M = B / A images of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Integer

from kind_jax import partition
from kind_jax.config import RunConfig
from kind_jax.train import cohorts, rows
from kind_jax.train import state as states
from kind_jax.train.freeze import hold, moving
from kind_jax.train.layout import Layout, deal_of, layout_of
from kind_jax.train.optimizer import learning_rate, make_optimizer
from kind_jax.train.state import Health, TrainState
from kind_jax.train.task import AVERAGE, DONE, Averaging, Batch, Metrics, Task, check_task


def draw(task: Task, batch: Batch, step: Int[Array, ""], seed: Integer[Array, ""] | None = None) -> Any:
    """What is random about one step, a function of the seed and the step number only."""
    key = jax.random.key(task.config.train.seed if seed is None else seed)
    return task.draw(batch, jax.random.fold_in(key, step))


def with_average(
    task: Task, fixed: partition.Collections, average: partition.Collections, done: Int[Array, ""]
) -> partition.Collections:
    """``fixed`` as the loss of ``task`` reads it, see :class:`kind_jax.train.task.Averaging`."""
    reads = isinstance(task, Averaging) and task.reads_average
    return {**fixed, AVERAGE: average, DONE: done} if reads else fixed


def gradients(
    task: Task, collections: partition.Collections, drawn: Any, fixed: partition.Collections
) -> tuple[partition.Collections, tuple[Metrics, Any]]:
    """Gradient of the leaves that train, mean metrics, and what moved, in ``train.accumulate`` micro-batches."""
    accumulate, held = task.config.train.accumulate, task.held

    def of(part: Any) -> tuple[partition.Collections, tuple[Metrics, Any]]:
        def f(trained: partition.Collections) -> tuple[Float[Array, ""], tuple[Metrics, Any]]:
            weights = partition.overlay(collections, trained)
            loss = task.loss(hold(held, weights, jax.lax.stop_gradient(weights)), part, fixed)
            return loss.value, (loss.metrics, dict(loss.moved))

        return jax.grad(f, has_aux=True)(moving(task.config.optimizer, collections))

    if accumulate == 1:
        return of(drawn)

    gate = getattr(drawn, "gate", None)
    of_cohorts = gate.index if gate is not None and gate.by_cohort else None

    def split(x: Array) -> Array:
        if x.shape[0] == 1 or x is of_cohorts:  # all samples share it, or each micro-batch has a part of each cohort
            return jnp.broadcast_to(x, (accumulate, *x.shape))
        # Micro-batch a takes samples a, a + A, ...: a batch axis that is sharded over devices stays sharded.
        return jnp.moveaxis(x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]), 1, 0)

    parts = jax.tree.map(split, drawn)
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(of, jax.tree.map(lambda x: x[0], parts)))
    total, _ = jax.lax.scan(lambda sum_, part: (jax.tree.map(jnp.add, sum_, of(part)), None), zero, parts)
    return jax.tree.map(lambda x: x / accumulate, total)


def _judge(
    config: RunConfig, health: Health, finite: Bool[Array, ""]
) -> tuple[Bool[Array, ""], Bool[Array, ""], Health]:
    """Whether a step counts, whether the run stands still, and its record.

    The host reads metrics late. So that it finds everything as it was at the fault, a run that has met more non-finite
    steps in a row than it may skip stands still from there on.
    """
    before = health.row > config.train.skip_nonfinite
    row = jnp.where(before, health.row, jnp.where(finite, 0, health.row + 1))
    skipped = health.skipped + jnp.where(before | finite, 0, 1)
    return finite & ~before, row > config.train.skip_nonfinite, Health(row, skipped)


def _either(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _nothing(leaf: Array) -> Array:
    """The update of a leaf that is not differentiated; whole numbers, like a bandit's, get one that can be clipped."""
    return jnp.zeros(leaf.shape, leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.float32)


def make_step(
    task: Task,
    *,
    rate: optax.Schedule | None = None,
    seed: Integer[Array, ""] | None = None,
    layout: Layout | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The step of a task, ``step(state, batch, fixed)``; jit it, donating the state.

    ``fixed`` is what :meth:`kind_jax.train.task.Task.fixed` gives, and can be left out where that is empty.

    Args:
      rate: learning rate by step; None takes the config's. It and ``seed`` may be traced, so that one compiled step
        serves every rate and seed of a sweep.
      seed: of noise, times and label drops; None takes the config's.
      layout: how samples and groups lie on the mesh; None is that of one device.

    Raises:
      UserError: ``data.per_class`` does not fit the batch, or ``task`` is none.
    """
    check_task(task)
    config, bank, held = task.config, task.bank, task.held
    layout = layout or layout_of(task)
    deal = deal_of(task, layout)
    rate = rate or learning_rate(config.optimizer, config.train.steps)
    tx = make_optimizer(config.optimizer, rate)

    def update(
        state: TrainState, grads: partition.Collections, found: tuple[Metrics, Any], present: Bool[Array, " rows"]
    ) -> tuple[TrainState, Metrics]:
        metrics, others = found
        # Frozen leaves are never differentiated; multi_transform sees zeros for them and keeps no moments.
        updates, opt = tx.update(
            partition.overlay(jax.tree.map(_nothing, state.collections), grads),
            state.opt,
            state.collections,
            present=present,
        )
        changes = moving(config.optimizer, cast(dict[str, Any], updates))
        old = moving(config.optimizer, state.collections)
        norm = optax.tree.norm(grads)
        fine, stopped, health = _judge(config, state.health, jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm))
        # Not even zero is added to what is frozen: -0.0 + 0.0 would change its bits.
        moved: Any = hold(held, cast(dict[str, Any], optax.apply_updates(old, changes)), old)
        weights = _either(fine, moved, old)
        for name, tree in others.items():
            weights[name] = _either(fine, tree, state.collections[name])
        opt = _either(fine, opt, state.opt)
        done = state.step + jnp.where(stopped, 0, 1)
        ema = state.ema
        if config.train.ema is not None:
            keep = jnp.where(stopped, 1, rows.decay(config.train.ema, done))
            latest = {name: weights[name] for name in ema if name in weights}
            before = {name: ema[name] for name in latest}
            ema = ema | hold(held, jax.tree.map(lambda e, w: e + (1 - keep) * (w - e), before, latest), latest)
        metrics |= {"grad_norm": norm, "learning_rate": jnp.asarray(rate(state.step), jnp.float32)}
        metrics |= {"nonfinite_row": health.row, "nonfinite_steps": health.skipped}
        new = TrainState(partition.overlay(state.collections, weights), ema, opt, done, health, state.averaged)
        return new, metrics

    def step(state: TrainState, batch: Batch, fixed: partition.Collections | None = None) -> tuple[TrainState, Metrics]:
        drawn, fixed = draw(task, batch, state.step, seed), fixed or {}
        if bank is None or deal is None:
            fixed = with_average(task, fixed, states.averages_of(config, state, None), state.step)
            grads, found = gradients(task, state.collections, drawn, fixed)
            return update(state, grads, found, jnp.zeros(0, bool))
        use = cohorts.use_of(cohorts.by_cohort(drawn.gate, layout.cohort), bank, deal, layout)
        drawn = drawn._replace(gate=use.gate)
        average = cohorts.laid_out(states.averages_of(config, state, use.taken), use)
        fixed = with_average(task, fixed, average, state.step)
        grads, found = gradients(task, cohorts.looked_up(state.collections, use), drawn, fixed)
        grads = cohorts.summed(grads, use)
        if use.taken is None:
            return update(state, grads, found, use.present)
        part = states.take(config, state, use.taken, after=optax.tree.norm(grads))
        new, metrics = update(part, grads, found, use.present)
        return states.put(state, use.taken, new), metrics

    return step
