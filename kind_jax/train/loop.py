"""The training loop: read it from top to bottom."""

from __future__ import annotations

import dataclasses
import io
import sys
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import jax

from kind_jax import partition
from kind_jax.config import RunConfig
from kind_jax.data import pipeline
from kind_jax.data.bad import BadRecords
from kind_jax.data.dataset import open_dataset
from kind_jax.data.summary import summary
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import history, hosts, sharding
from kind_jax.train import state as states
from kind_jax.train.checkpoint import Checkpoints
from kind_jax.train.diagnose import diagnosed
from kind_jax.train.fits import check_memory
from kind_jax.train.flight import Flight
from kind_jax.train.lock import check_present
from kind_jax.train.meter import Meter, describe
from kind_jax.train.metrics import FILE_NAME, make_writer, read_metrics
from kind_jax.train.profile import Profile
from kind_jax.train.progress import Progress
from kind_jax.train.resume import Resume, begun, choose, restore, set_aside_refused, verification
from kind_jax.train.run import check, save_config, with_places
from kind_jax.train.signals import stop_requests
from kind_jax.train.step import make_step
from kind_jax.train.task import Batch, Metrics
from kind_jax.train.watch import one_fate
from kind_jax.untrusted.text import printable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a call of :func:`train` did; ``waits`` says in words how long steps waited for something."""

    directory: Path
    step: int
    seconds: float
    interrupted: bool
    waits: str


def train(
    config: RunConfig,
    directory: Path,
    *,
    stop_after: int | None = None,
    resume: Resume = "auto",
    initial: Callable[[], partition.Collections] | None = None,
) -> Summary:
    """Train until ``train.steps``, continuing the run in ``directory`` if there is one.

    Args:
      config: the run's settings.
      directory: the run's folder: config.json, metrics.jsonl, checkpoints/ and samples/.
      stop_after: stop after this step; the run can be continued.
      resume: whether a run in ``directory`` is continued, see :data:`kind_jax.train.resume.Resume`.
      initial: gives the weights of step 0; None draws them from the seed.

    Raises:
      UserError: the folder, the data set, the mesh or a setting does not fit.
    """
    if stop_after is not None and stop_after < 1:
        raise UserError(f"--stop-after is {stop_after}, but it must be 1 or more.")
    begin = time.monotonic()
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config.train.batch, config.train.accumulate, mesh)
    config = with_places(config)
    _say(f"opening the data set {_named(config)} ...")
    dataset = open_dataset(config.data, "train")
    for line in summary(dataset):
        _say(line)
    begins = initial is None and not (directory / "config.json").is_file()
    task, warnings = task_of(config).bound(dataset, begins=begins)
    config = task.config
    for line in warnings:
        _say(line)
    shapes = states.abstract(task)  # refuses a config that leaves nothing to train
    check_memory(task.batch(), shapes, mesh)
    _say(_parameters(shapes.collections))

    check(directory, config)  # before anything is written, the lock included
    with hosts.locked(directory), stop_requests() as received:
        hosts.shared(directory)
        remarks = check(directory, config)  # another process may have made it its own meanwhile
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

        # 2. State: from the newest good checkpoint, or fresh. A fresh folder says at once whose it is, should we be
        # killed; but first comes everything that may be refused.
        found = choose(directory, resume, config.train.verify)
        _say(
            "making the weights of step 0 ..."
            if found.step is None
            else f"reading the checkpoint of step {found.step} ..."
        )
        weights = (initial or task.init)() if found.step is None else None
        if hosts.is_first() and not (directory / "config.json").is_file():
            save_config(directory, config)
        shardings = sharding.shard_like(shapes, mesh)
        checkpoints = Checkpoints(directory / "checkpoints", config)
        if weights is None:
            placed = jax.tree.map(lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), shapes, shardings)
            state, found = restore(checkpoints, found, placed, data, fingerprint)
        else:
            state = begun(task, weights, shardings)
            del weights
        start = done = int(state.step)
        if start > config.train.steps:
            raise UserError(
                f"train.steps is {config.train.steps}, but {directory} has trained for {start} steps already."
            )
        if hosts.is_first():
            save_config(directory, config)
        notes = set_aside_refused(directory, found) + (remarks if start else [])
        unverified = verification(directory, found)
        end = min(config.train.steps, config.train.steps if stop_after is None else stop_after)

        # 3. Steps. Metrics are read one step late, so that the device never waits for the host.
        step = jax.jit(make_step(task), donate_argnums=0, out_shardings=(shardings, sharding.replicated(mesh)))
        anew = start == 0 and hosts.is_first() and bool(read_metrics(directory / FILE_NAME))
        writer = make_writer(directory, config.train.tensorboard, start) if hosts.is_first() else None
        profile = Profile(directory / "profile", config.train.profile)
        pending: tuple[int, Any, dict[str, float]] | None = None
        meter = Meter(task.flops())
        progress = Progress(
            total=config.train.steps, start=start, images_per_step=config.train.batch,
            stream=None if hosts.is_first() else io.StringIO(),
        )  # fmt: skip

        bad = BadRecords(dataset, config.data.skip_bad, progress.log if hosts.is_first() else _complain)

        def batch_of(index: int | None = None) -> Batch:
            if index is not None:
                data.set_state({"next_index": index})
            return jax.make_array_from_process_local_data(placement, bad.take(next(data)))

        def check_numbers(values: Metrics | dict[str, float]) -> None:
            """Never let a diverged model push good checkpoints out."""
            if int(values["nonfinite_row"]) > config.train.skip_nonfinite:
                raise diagnosed(task, state, batch_of, directory, saved)

        def save() -> None:
            report()  # before the checkpoint is there: a resumed run does not log its steps again
            with meter.waiting("checkpoint_stall"):
                check_numbers(metrics)
                check_present(directory)
                check_verified(wait=True)
                checkpoints.save(state, data, meta)

        def check_verified(*, wait: bool = False) -> None:
            if unverified is not None and (problem := unverified.problem(wait=wait)) is not None:
                aside = history.set_aside(checkpoints.directory, start)
                raise UserError(
                    f"{problem} It was read while the run went on from it, and nothing was saved since; it is now "
                    f"{aside.name}, and the same command goes back to the checkpoint before it."
                )

        def report(*, last: bool = False) -> None:
            nonlocal pending
            if pending is None:
                return
            (at, metrics, waits), pending = pending, None
            values = {name: float(value) for name, value in jax.device_get(metrics).items()} | waits
            check_numbers(values)
            del values["nonfinite_row"]
            check_present(directory)
            if bad.count:
                values["bad_records"] = bad.count
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
            for note in notes:
                progress.log(note)
            if start:
                progress.log(f"resuming {directory} at step {start}")
            if anew:
                progress.log(f"{directory} has no checkpoint yet: beginning again at step 0")
            if unverified is not None:
                progress.log(f"reading the {found.bytes / 1e9:.1f} GB of step {start} in the background to verify them")
            if start < end:
                progress.log("compiling the training step ...")
            # Whatever ends the loop, saves under way are finished first.
            with closing(checkpoints), closing(writer) if writer else nullcontext(), closing(profile), one_fate():
                saved, metrics, interrupted, flight = start, {}, False, Flight()
                while done < end and not interrupted:
                    with meter.waiting("input_wait"):
                        batch = batch_of()
                    profile.before(done + 1)
                    state, metrics = step(state, batch)
                    done += 1
                    before = flight.add(metrics)
                    if before is None:
                        progress.begin(done, float(metrics["loss"]), time.monotonic() - begin)
                    elif pending is not None:
                        report()
                    elif progress.silent:
                        progress.update(done - 1, float(before["loss"]))
                    profile.after(done, metrics)
                    checkpoints.check()
                    check_verified()
                    if done % config.train.log_every == 0 or done == end:
                        pending = (done, metrics, meter.read())
                    if _due(config.train.checkpoint_every, done):
                        save()
                        saved = done
                    if _due(config.train.sample_every, done) or (
                        config.train.sample_every and done == config.train.steps
                    ):
                        progress.log(f"drawing samples of step {done} ...")
                        with meter.waiting("sampling"):
                            check_present(directory)
                            task.watch(state, mesh, directory, done)
                    interrupted = hosts.asked_to_stop(bool(received), done)
                if interrupted and saved != done:
                    progress.log(f"saving step {done}, then stopping")
                report(last=True)
                if saved != done:
                    save()
                check_verified(wait=True)
            interrupted = interrupted and done < end
            if metrics and (skipped := int(metrics["nonfinite_steps"])):
                progress.log(f"{skipped} steps of this run were skipped, whose loss or gradient was not finite")
            if interrupted:
                progress.log(f"interrupted: saved step {done}; the same command continues from there")
    return Summary(
        directory=directory,
        step=done,
        seconds=time.monotonic() - begin,
        interrupted=interrupted,
        waits=meter.summary(),
    )


def _say(message: str) -> None:
    """What goes on before there is a progress bar."""
    if hosts.is_first():
        print(message, flush=True)


def _named(config: RunConfig) -> str:
    where = config.data.name or config.data.path
    return printable(f"{config.data.source} {where}" if where else config.data.source, 500)


def _parameters(collections: partition.Collections) -> str:
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in collections.items()}
    parts = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)
    return f"{sum(sizes.values()):,} parameters: {parts}"


def _complain(message: str) -> None:
    """Every host reads its own part of the data, and only the first one has a progress bar."""
    print(f"process {jax.process_index()}: {message}", file=sys.stderr, flush=True)


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
