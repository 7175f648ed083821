"""The training loop: read it from top to bottom."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kind_jax import model, partition
from kind_jax.config import Config
from kind_jax.data import pipeline
from kind_jax.data.dataset import Dataset, open_dataset
from kind_jax.errors import UserError
from kind_jax.train import hosts, sharding
from kind_jax.train import state as states
from kind_jax.train.checkpoint import Checkpoints, read_meta
from kind_jax.train.checkpoint import steps as checkpoint_steps
from kind_jax.train.meter import Meter, describe
from kind_jax.train.metrics import make_writer
from kind_jax.train.profile import Profile
from kind_jax.train.progress import Progress
from kind_jax.train.run import check, save_config
from kind_jax.train.samples import save_samples
from kind_jax.train.signals import stop_requests
from kind_jax.train.state import TrainState
from kind_jax.train.step import Metrics, make_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a call of :func:`train` did; ``waits`` says in words how long steps waited for something."""

    directory: Path
    step: int
    seconds: float
    interrupted: bool
    waits: str


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
    with hosts.locked(directory), stop_requests() as received:
        check(directory, config)  # another process may have made it its own meanwhile
        hosts.barrier("checked")  # before the first host writes into the folder
        # 1. Input: the same global batches on any number of hosts.
        placement = sharding.batch_sharding(mesh)
        shard, shards = sharding.share_of_batch(placement, config.train.batch)
        data = pipeline.batches(
            dataset, batch=config.train.batch, seed=config.data.seed, shard=shard, shards=shards,
            workers=config.data.workers,
        )  # fmt: skip
        fingerprint = pipeline.fingerprint(dataset, batch=config.train.batch, seed=config.data.seed)
        meta = {"fingerprint": fingerprint, "class_names": list(dataset.class_names)}

        # 2. State: from the newest checkpoint, or fresh. A fresh folder says at once whose it is, should we be killed;
        # but first comes everything that may be refused.
        resumes = bool(checkpoint_steps(directory / "checkpoints"))
        weights = None if resumes else _initial(config, initial)
        if hosts.is_first() and not (directory / "config.json").is_file():
            save_config(directory, config)
        shardings = sharding.shard_like(shapes, mesh)
        checkpoints = Checkpoints(directory / "checkpoints", config.train.keep)
        if resumes:
            state = _resume(config, checkpoints, shardings, data, fingerprint)
        else:
            # From the host, where every process has the same: arrays of one device cannot go to others' devices.
            placed = jax.device_put(jax.tree.map(np.asarray, weights), shardings.collections)
            state = jax.jit(functools.partial(states.start, config), out_shardings=shardings)(placed)
            del weights, placed
        start = done = int(state.step)
        if start > config.train.steps:
            raise UserError(
                f"train.steps is {config.train.steps}, but {directory} has trained for {start} steps already."
            )
        if hosts.is_first():
            save_config(directory, config)
        end = min(config.train.steps, config.train.steps if stop_after is None else stop_after)

        # 3. Steps. Metrics are read one logging interval late, so that the host never waits for the device.
        step = jax.jit(make_step(config), donate_argnums=0, out_shardings=(shardings, sharding.replicated(mesh)))
        writer = make_writer(directory, config.train.tensorboard, start) if hosts.is_first() else None
        profile = Profile(directory / "profile", config.train.profile)
        pending: tuple[int, Any, dict[str, float]] | None = None
        meter = Meter(config)
        progress = Progress(
            total=config.train.steps, start=start, images_per_step=config.train.batch,
            stream=None if hosts.is_first() else io.StringIO(),
        )  # fmt: skip

        def report(*, last: bool = False) -> None:
            if pending is None:
                return
            at, metrics, waits = pending
            values = {name: float(value) for name, value in jax.device_get(metrics).items()} | waits
            # The last one is not read late, so the time at which it is read says nothing about the speed.
            progress.update(at, values["loss"], describe(waits), timed=not last)
            if progress.steps_per_second is not None:
                values["steps_per_second"] = progress.steps_per_second
                values["images_per_second"] = progress.images_per_second or 0.0
                if (mfu := meter.mfu(progress.steps_per_second)) is not None:
                    values["mfu"] = mfu
            if writer is not None:
                writer.write(at, values)

        with progress:
            if start:
                progress.log(f"resuming {directory} at step {start}")
            # Whatever ends the loop, saves under way are finished first.
            with closing(checkpoints), closing(writer) if writer else nullcontext(), closing(profile):
                saved, metrics, interrupted = start, {}, False
                while done < end and not interrupted:
                    with meter.waiting("input_wait"):
                        batch = jax.make_array_from_process_local_data(placement, next(data))
                    profile.before(done + 1)
                    state, metrics = step(state, batch)
                    done += 1
                    profile.after(done, metrics)
                    if done % config.train.log_every == 0 or done == end:
                        report()
                        pending = (done, metrics, meter.read())
                    if _due(config.train.checkpoint_every, done):
                        _check_finite(done, metrics)
                        with meter.waiting("checkpoint_stall"):
                            checkpoints.save(state, data, meta)
                        saved = done
                    if _due(config.train.sample_every, done) or (
                        config.train.sample_every and done == config.train.steps
                    ):
                        with meter.waiting("sampling"):
                            save_samples(config, state, mesh, directory / "samples" / f"step_{done:07d}.png")
                    interrupted = hosts.asked_to_stop(bool(received), done)
                report(last=True)
                if saved != done:
                    _check_finite(done, metrics)
                    with meter.waiting("checkpoint_stall"):
                        checkpoints.save(state, data, meta)
            if interrupted:
                progress.log(f"interrupted: saved step {done}; the same command continues from there")
    return Summary(
        directory=directory,
        step=done,
        seconds=time.monotonic() - begin,
        interrupted=interrupted,
        waits=meter.summary(),
    )


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
