"""Transfer as one call, and what it costs in memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax

from kind_jax.config import Config
from kind_jax.deploy.bundle import Bundle
from kind_jax.partition import fingerprint
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.freeze import moving
from kind_jax.train.loop import Summary, train
from kind_jax.train.resume import Resume
from kind_jax.transferring.plan import plan
from kind_jax.transferring.start import start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a run keeps in memory, from shapes alone.

    Attributes:
      trained: parameters that are trained.
      parameters: all parameters, adapters included.
      optimizer_bytes: moments and counters.
      average_bytes: the moving average.
    """

    trained: int
    parameters: int
    optimizer_bytes: int
    average_bytes: int


def footprint(config: Config) -> Footprint:
    """The footprint of a config that :func:`kind_jax.transferring.plan.plan` completed, or of any other run."""
    state = states.abstract(task_of(config))

    def total(tree: object) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    return Footprint(
        trained=sum(leaf.size for leaf in jax.tree.leaves(moving(config.optimizer, state.collections))),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.collections)),
        optimizer_bytes=total(state.opt),
        average_bytes=total(state.ema),
    )


def transfer(
    source: Bundle, config: Config, directory: Path, *, stop_after: int | None = None, resume: Resume = "auto"
) -> Summary:
    """Train ``config`` from ``source``'s weights as ``config.transfer`` says, or continue that run in ``directory``.

    Args:
      source: a run or an artifact, see :func:`kind_jax.deploy.bundle.open_bundle`.
      config: of the target: its data, steps, rates, and a model of the source's shape with the target's classes.
      directory: the run's folder, see :func:`kind_jax.train.loop.train`.
      stop_after: stop after this step.
      resume: whether a run in ``directory`` is continued.

    Raises:
      UserError: a setting differs from the source's, or anything that the trainer refuses.
    """
    complete = prepare(source, config)
    return train(complete, directory, stop_after=stop_after, resume=resume, initial=lambda: start(complete, source))


def prepare(source: Bundle, config: Config) -> Config:
    """``config`` completed: freeze switches of its method, and whose weights it starts from."""
    return plan(config, source.config, fingerprint(source.collections))
