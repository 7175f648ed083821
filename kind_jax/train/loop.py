"""The training loop: read it from top to bottom."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax

from kind_jax import partition
from kind_jax.config import RunConfig
from kind_jax.errors import UserError
from kind_jax.train import hosts, opening, sharding
from kind_jax.train.diagnose import diagnosed
from kind_jax.train.flight import Flight
from kind_jax.train.keeper import Keeper
from kind_jax.train.lock import check_present
from kind_jax.train.metrics import Callback
from kind_jax.train.profile import Profile
from kind_jax.train.reporter import Reporter
from kind_jax.train.resume import Resume
from kind_jax.train.rounds import Rounds
from kind_jax.train.signals import stop_requests
from kind_jax.train.step import make_step
from kind_jax.train.task import Batch
from kind_jax.train.watch import one_fate

_step_of = functools.lru_cache(maxsize=8)(make_step)  # a run that goes on in the same process traces nothing anew


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
    directory: str | Path,
    *,
    stop_after: int | None = None,
    resume: Resume = "auto",
    initial: Callable[[], partition.Collections] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Summary:
    """Train until ``train.steps``, continuing the run in ``directory`` if there is one.

    Args:
      config: the run's settings.
      directory: the run's folder: config.json, metrics.jsonl, checkpoints/ and what its task shows.
      stop_after: stop after this step; the run can be continued.
      resume: whether a run in ``directory`` is continued, see :data:`kind_jax.train.resume.Resume`.
      initial: gives the weights of step 0; None draws them from the seed.
      callbacks: get what metrics.jsonl gets.

    Raises:
      UserError: the folder, the data set, the mesh or a setting does not fit.
    """
    if stop_after is not None and stop_after < 1:
        raise UserError(f"--stop-after is {stop_after}, but it must be 1 or more.")
    directory = Path(directory)
    begin = time.monotonic()
    looked = opening.look(config, directory, fresh=initial is None, resume=resume)
    task, mesh, settings = looked.task, looked.mesh, looked.task.config.train
    with hosts.locked(directory), stop_requests() as received:
        opened = opening.start(looked, directory, resume, initial)
        state, data = opened.state, opened.data
        done = start = int(state.step)
        end = settings.steps if stop_after is None else min(settings.steps, stop_after)
        fixed, out = opened.fixed, (opened.shardings, sharding.replicated(mesh))
        step = jax.jit(_step_of(task, layout=looked.layout), donate_argnums=0, out_shardings=out)

        def batch_of(index: int | None = None) -> Batch:
            """The next batch, or that of a step, counted from 0: this host's share, on its devices."""
            if index is not None:
                data.set_state({"next_index": index})
            return jax.make_array_from_process_local_data(opened.placement, reporter.bad.take(next(data)))

        def check_numbers(values: Any) -> None:
            """Never let a diverged model push good checkpoints out."""
            if int(values["nonfinite_row"]) > settings.skip_nonfinite:
                raise diagnosed(task, opened.bank.gather(state), fixed, batch_of, directory, keeper.saved)

        def save() -> None:
            reporter.report()  # before the checkpoint is there: a resumed run does not log its steps again
            reporter.turned(rounds.figures())
            with reporter.waiting("checkpoint_stall"):
                check_numbers(metrics)
                keeper.save(state, done)

        keeper = Keeper(directory, opened)
        reporter = Reporter(
            task, directory, looked.dataset, start, begin=begin, check=check_numbers, callbacks=callbacks
        )
        rounds = Rounds(task, looked.dataset, mesh)
        profile, flight = Profile(directory / "profile", settings.profile), Flight()
        metrics, interrupted = {}, False
        with reporter.open(opened.notes):
            if opened.unverified is not None:
                size = opened.found.bytes / 1e9
                reporter.log(f"reading the {size:.1f} GB of step {start} in the background to verify them")
            if start < end:
                reporter.log("compiling the training step ...")
            with keeper, closing(reporter), closing(profile), one_fate():
                state = rounds.begun(state, done, fixed)
                while done < end and not interrupted:
                    with reporter.waiting("input_wait"):
                        batch = batch_of()
                    profile.before(done + 1)
                    state, metrics = step(state, batch, fixed)
                    done += 1
                    reporter.stepped(done, metrics, flight.add(metrics))
                    profile.after(done, metrics)
                    reporter.turned(rounds.figures())
                    state = rounds.turned(state, done, fixed)
                    keeper.look()
                    if done % settings.log_every == 0 or done == end:
                        reporter.note(done, metrics)
                    if _due(settings.sample_every, done) or (settings.sample_every and done == settings.steps):
                        with reporter.watching(done):
                            check_present(directory)
                            figures = task.watch(opened.bank.gather(state), fixed, mesh, directory, done)
                        reporter.watched(done, figures)
                    if _due(settings.checkpoint_every, done):  # last: a resumed run neither looks nor logs again
                        save()
                    interrupted = hosts.asked_to_stop(bool(received), done)
                if interrupted and keeper.saved != done:
                    reporter.log(f"saving step {done}, then stopping")
                reporter.report(last=True)
                if keeper.saved != done:
                    save()
                keeper.look(wait=True)
            interrupted = interrupted and done < end
            if metrics and (skipped := int(metrics["nonfinite_steps"])):
                reporter.log(f"{skipped} steps of this run were skipped, whose loss or gradient was not finite")
            if interrupted:
                reporter.log(f"interrupted: saved step {done}; the same command continues from there")
    seconds = time.monotonic() - begin
    return Summary(
        directory=directory, step=done, seconds=seconds, interrupted=interrupted, waits=reporter.summary()
    )  # fmt: skip


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
