"""The training loop: read it from top to bottom."""

from __future__ import annotations

import dataclasses
import functools
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import adapters, model, partition, sampling
from kind_jax.config import Config
from kind_jax.data import pipeline
from kind_jax.data.dataset import Dataset, open_dataset
from kind_jax.errors import UserError
from kind_jax.images import grid, save_png
from kind_jax.train import sharding
from kind_jax.train import state as states
from kind_jax.train.checkpoint import Checkpoints, read_meta
from kind_jax.train.checkpoint import steps as checkpoint_steps
from kind_jax.train.lock import run_lock
from kind_jax.train.metrics import make_writer
from kind_jax.train.progress import Progress
from kind_jax.train.run import check, save_config
from kind_jax.train.state import TrainState
from kind_jax.train.step import Metrics, make_step

GRID_ROWS, GRID_COLUMNS = 6, 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a call of :func:`train` did."""

    directory: Path
    step: int
    seconds: float
    interrupted: bool


def train(
    config: Config,
    directory: Path,
    *,
    stop_after: int | None = None,
    initial: Callable[[], partition.Collections] | None = None,
) -> Summary:
    """Train until ``train.steps``, continuing the run in ``directory`` if there is one.

    Args:
      config: the run's settings.
      directory: the run's folder: config.json, metrics.jsonl, checkpoints/ and samples/.
      stop_after: stop after this step; the run can be continued.
      initial: gives the weights of step 0; None draws them from the seed.

    Raises:
      UserError: the folder, the data set, the mesh or a setting does not fit.
    """
    if stop_after is not None and stop_after < 1:
        raise UserError(f"--stop-after is {stop_after}, but it must be 1 or more.")
    begin = time.monotonic()
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config.train.batch, config.train.accumulate, mesh)
    dataset = open_dataset(config.data, "train")
    _check_fits(config, dataset)
    shapes = states.abstract(config)  # refuses a config that leaves nothing to train

    check(directory, config)  # before anything is written, the lock included
    with run_lock(directory), _signals() as interrupted:
        check(directory, config)  # another process may have made it its own meanwhile
        # 1. Input: the same global batches on any number of hosts.
        data = pipeline.batches(
            dataset, batch=config.train.batch, seed=config.data.seed, shard=jax.process_index(),
            shards=jax.process_count(), workers=config.data.workers,
        )  # fmt: skip
        fingerprint = pipeline.fingerprint(dataset, batch=config.train.batch, seed=config.data.seed)
        meta = {"fingerprint": fingerprint, "class_names": list(dataset.class_names)}

        # 2. State: from the newest checkpoint, or fresh. A fresh folder says at once whose it is, should we be killed;
        # but first comes everything that may be refused.
        resumes = bool(checkpoint_steps(directory / "checkpoints"))
        weights = None if resumes else _initial(config, initial)
        if not (directory / "config.json").is_file():
            save_config(directory, config)
        shardings = sharding.shard_like(shapes, mesh)
        checkpoints = Checkpoints(directory / "checkpoints", config.train.keep)
        if resumes:
            state = _resume(config, checkpoints, shardings, data, fingerprint)
        else:
            placed = jax.device_put(weights, shardings.collections)
            state = jax.jit(functools.partial(states.start, config), out_shardings=shardings)(placed)
            del weights, placed
        start = done = int(state.step)
        if start > config.train.steps:
            raise UserError(
                f"train.steps is {config.train.steps}, but {directory} has trained for {start} steps already."
            )
        save_config(directory, config)
        end = min(config.train.steps, config.train.steps if stop_after is None else stop_after)

        # 3. Steps. Metrics are read one logging interval late, so that the host never waits for the device.
        step = jax.jit(make_step(config), donate_argnums=0, out_shardings=(shardings, sharding.replicated(mesh)))
        placement = sharding.batch_sharding(mesh)
        writer = make_writer(directory, config.train.tensorboard, start)
        pending: tuple[int, Any] | None = None
        progress = Progress(total=config.train.steps, start=start, images_per_step=config.train.batch)

        def report() -> None:
            if pending is not None:
                values = {name: float(value) for name, value in jax.device_get(pending[1]).items()}
                progress.update(pending[0], values["loss"])
                if progress.steps_per_second is not None:
                    values |= {
                        "steps_per_second": progress.steps_per_second,
                        "images_per_second": progress.images_per_second or 0.0,
                    }
                writer.write(pending[0], values)

        with progress:
            if start:
                progress.log(f"resuming {directory} at step {start}")
            # Whatever ends the loop, saves under way are finished first.
            with closing(checkpoints), closing(writer):
                saved, metrics = start, {}
                while done < end and not interrupted:
                    batch = jax.make_array_from_process_local_data(placement, next(data))
                    state, metrics = step(state, batch)
                    done += 1
                    if done % config.train.log_every == 0 or done == end:
                        report()
                        pending = (done, metrics)
                    if _due(config.train.checkpoint_every, done):
                        _check_finite(done, metrics)
                        checkpoints.save(state, data, meta)
                        saved = done
                    if _due(config.train.sample_every, done) or (
                        config.train.sample_every and done == config.train.steps
                    ):
                        save_samples(config, state, directory / "samples" / f"step_{done:07d}.png")
                report()
                if saved != done:
                    _check_finite(done, metrics)
                    checkpoints.save(state, data, meta)
            if interrupted:
                progress.log(f"interrupted: saved step {done}; the same command continues from there")
    return Summary(directory=directory, step=done, seconds=time.monotonic() - begin, interrupted=bool(interrupted))


def save_samples(config: Config, state: TrainState, path: Path) -> None:
    """Class-conditional samples of the averaged weights, a column for each of up to ten classes."""
    count = config.model.num_classes
    columns = np.unique(np.linspace(0, count - 1, min(GRID_COLUMNS, count)).astype(np.int32))
    labels = np.tile(columns, GRID_ROWS)
    gates = model.class_gate(config.model)
    weights = adapters.merge(config.transfer, states.averaged(config, state))
    images = sampling.draw(
        config, weights, labels, gates(jnp.asarray(labels), jnp.zeros(len(labels), bool)),
        null_gate=gates(jnp.asarray(labels), jnp.ones(len(labels), bool)), seed=config.train.seed,
    )  # fmt: skip
    visible = images if images.shape[-1] in (1, 3) else images[..., :3]  # latents: three of their channels
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(path, grid(visible, len(columns), scale=max(1, 48 // config.model.size)))


def _initial(config: Config, initial: Callable[[], partition.Collections] | None) -> partition.Collections:
    if initial is not None:
        return initial()
    if config.transfer.method != "none":
        raise UserError(
            f"transfer.method is {config.transfer.method!r}, so the run starts from another model: use "
            "kind-jax transfer."
        )
    return model.init(config.model, config.train.seed)


def _check_fits(config: Config, dataset: Dataset) -> None:
    shape = (config.model.size, config.model.size, config.model.channels)
    if dataset.image_shape != shape:
        raise UserError(
            f"model.size and model.channels make images {shape}, but data.source {config.data.source!r} has "
            f"{dataset.image_shape}."
        )
    settings = config.model
    if settings.num_classes > 1 and not (
        settings.label_embedding or any(form.tailors for form in settings.forms.values())
    ):
        raise UserError(
            "model.label_embedding is False, but it must be True where no weight has tailors: nothing would tell the "
            f"model which of its {settings.num_classes} classes to draw."
        )
    if config.model.num_classes != len(dataset.class_names):
        raise UserError(
            f"model.num_classes is {config.model.num_classes}, but data.source {config.data.source!r} with the chosen "
            f"data.classes has {len(dataset.class_names)} classes."
        )


def _resume(
    config: Config, checkpoints: Checkpoints, shardings: TrainState, data: Any, fingerprint: dict[str, Any]
) -> TrainState:
    step = checkpoint_steps(checkpoints.directory)[-1]
    difference = pipeline.describe_difference(read_meta(checkpoints.directory, step)["fingerprint"], fingerprint)
    if difference:
        raise UserError(f"{checkpoints.directory / str(step)} was trained on another input pipeline: {difference}.")
    placed = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        states.abstract(config),
        shardings,
    )
    return checkpoints.restore(step, placed, data)


def _check_finite(step: int, metrics: Metrics) -> None:
    """Never let a diverged model push good checkpoints out."""
    loss = float(metrics["loss"])
    if not math.isfinite(loss):
        raise UserError(
            f"the loss is {loss} at step {step}, so nothing was saved since the last checkpoint; "
            "lower optimizer.learning_rate or set optimizer.clip."
        )


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that becomes true when the process is asked to stop; the second request stops it at once."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        del frame
        received.append(number)
        for n in previous:
            signal.signal(n, signal.SIG_DFL)

    previous: dict[int, Any] = {}
    try:
        for n in (signal.SIGINT, signal.SIGTERM):
            previous[n] = signal.signal(n, note)
    except ValueError:  # not the main thread: signals stay as they are
        previous = {}
    try:
        yield received
    finally:
        for n, handler in previous.items():
            signal.signal(n, handler)
