"""What a run leaves behind when its loss is no longer finite: which step, which images, which array first."""

from __future__ import annotations

import functools
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import partition
from kind_jax.config import RunConfig
from kind_jax.errors import UserError
from kind_jax.files import atomic_directory
from kind_jax.train import hosts, leaves
from kind_jax.train import state as states
from kind_jax.train.optimizer import learning_rate
from kind_jax.train.state import TrainState
from kind_jax.train.step import draw, gradients, with_average
from kind_jax.train.task import Batch, Task


def diagnosed(
    task: Task,
    state: TrainState,
    fixed: partition.Collections,
    batch_of: Callable[[int], Batch],
    directory: Path,
    saved: int,
) -> UserError:
    """Repeat the step that was not finite, from the very state that it met, and write down what it saw.

    Args:
      state: of a run that stands still, see :func:`kind_jax.train.step.make_step`; ``fixed`` as there.
      batch_of: the batch of a step, counted from 0.
      directory: the run's folder; ``diagnostics/step_…`` in it gets report.json and batch.npz (this host's records, and
        what was drawn for each sample of the whole batch, like its time).
      saved: step of the last checkpoint, 0 if there is none.

    Returns:
      The sentence that the run ends with.
    """
    step, row = int(state.step) + 1, int(state.health.row)
    batch = batch_of(step - 1)
    seen = jax.device_get(_look(task, state, batch, fixed))
    folder = directory / "diagnostics" / f"step_{step:07d}"
    if hosts.is_first():
        with atomic_directory(folder, replace=folder.is_dir()) as new:
            report = _report(task.config, step, row, saved, seen)
            (new / "report.json").write_text(json.dumps(_plain(report), indent=1, allow_nan=False))
            buffer = io.BytesIO()
            mine = {name: _local(array) for name, array in batch.items()}
            arrays: dict[str, Any] = {name: np.asarray(each) for name, each in seen["drawn"].items()} | mine
            np.savez(buffer, **arrays)
            (new / "batch.npz").write_bytes(buffer.getvalue())
    when = f"step {step}" if row == 1 else f"steps {step - row + 1} to {step}"
    loss, norm = float(seen["metrics"]["loss"]), float(seen["norm"])
    last = f"the last checkpoint is of step {saved}" if saved else "there is no checkpoint yet"
    return UserError(
        f"the loss or its gradient is not finite at {when} (loss {loss:g}, gradient norm {norm:g}); nothing was saved "
        f"since, {last}, and {folder} says which images and arrays were involved; begin a run with a lower "
        "optimizer.learning_rate or with optimizer.clip, or let train.skip_nonfinite skip such steps in this one."
    )


@functools.partial(jax.jit, static_argnums=0)
def _look(task: Task, state: TrainState, batch: Batch, fixed: partition.Collections) -> dict[str, Any]:
    drawn = draw(task, batch, state.step)
    fixed = with_average(task, fixed, states.averaged(task.config, state), state.step)
    grads, (metrics, _) = gradients(task, state.collections, drawn, fixed)
    squares = {path: jnp.square(g.astype(jnp.float32)).sum() for path, g in leaves.paths(grads).items()}
    return {
        "metrics": metrics,
        "norm": jnp.sqrt(jnp.stack(list(squares.values())).sum()),
        "gradient_norm": {path: jnp.sqrt(square) for path, square in squares.items()},
        "weight_max": {path: jnp.abs(w).max() for path, w in leaves.paths(state.collections).items() if w.size},
        "drawn": {name: value for name, value in drawn._asdict().items() if getattr(value, "ndim", None) == 1},
        # Counted: across devices, the largest of numbers may leave NaN out.
        "not_finite": {name: _odd(array) for name, array in batch.items()}
        | {"weights": sum(map(_odd, jax.tree.leaves(state.collections)))},
    }


def _odd(array: jax.Array) -> jax.Array:
    return jnp.sum(~jnp.isfinite(array))


def _report(config: RunConfig, step: int, row: int, saved: int, seen: dict[str, Any]) -> dict[str, Any]:
    largest = sorted(seen["weight_max"].items(), key=lambda item: -np.nan_to_num(item[1], nan=np.inf))
    return {
        "step": step,
        "steps_in_a_row": row,
        "last_checkpoint": saved,
        "learning_rate": learning_rate(config.optimizer, config.train.steps)(step - 1),
        "losses": seen["metrics"],
        "not_finite": seen["not_finite"],
        "gradients_not_finite": [path for path, norm in seen["gradient_norm"].items() if not np.isfinite(norm)],
        "gradient_norm": seen["gradient_norm"],
        "largest_weights": dict(largest[:20]),
        "again": "the same command repeats the steps after the last checkpoint exactly, this one included",
    }


def _plain(tree: Any) -> Any:
    """JSON values; what JSON cannot say becomes text."""
    if isinstance(tree, dict):
        return {name: _plain(value) for name, value in tree.items()}
    if isinstance(tree, list | str):
        return tree
    number = np.asarray(tree).item()
    return number if math.isfinite(number) else str(number)


def _local(array: jax.Array) -> np.ndarray:
    shards = {shard.index[0].start or 0: np.asarray(shard.data) for shard in array.addressable_shards}
    return np.concatenate([shards[start] for start in sorted(shards)])
