"""Transfer as one call, and what it costs in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax

from kind_jax.config import Config
from kind_jax.config.check import require
from kind_jax.data.own import OwnData
from kind_jax.deploy.bundle import Bundle, check_bundle, open_bundle
from kind_jax.partition import fingerprint
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.fit import fit
from kind_jax.train.freeze import moving
from kind_jax.train.loop import Summary
from kind_jax.train.metrics import Callback
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
    source: Bundle | str | Path,
    config: Config,
    directory: str | Path,
    *,
    data: OwnData | None = None,
    callbacks: Sequence[Callback] = (),
    stop_after: int | None = None,
    resume: Resume = "auto",
) -> Summary:
    """Train ``config`` from ``source``'s weights as ``config.transfer`` says, or continue that run in ``directory``.

    Args:
      source: a bundle, or the path of a run or an artifact, see :func:`kind_jax.open_bundle`.
      config: of the target: its data, steps, rates, and a model of the source's shape with the target's classes, as
        :func:`kind_jax.transfer_config` gives it.
      directory, data, callbacks, stop_after, resume: see :func:`kind_jax.fit`.

    Raises:
      UserError: a setting differs from the source's, or anything that the trainer refuses.
    """
    bundle = source if isinstance(source, Bundle) else open_bundle(source, kind=Config)
    require(isinstance(config, Config), "config", config, "settings of a generator, as transfer_config(source) gives")
    check_bundle(bundle, "source")
    complete = prepare(bundle, config)
    return fit(
        complete, directory, data=data, callbacks=callbacks, stop_after=stop_after, resume=resume,
        initial=lambda: start(complete, bundle),
    )  # fmt: skip


def prepare(source: Bundle, config: Config) -> Config:
    """``config`` completed: freeze switches of its method, and whose weights it starts from."""
    return plan(config, source.config, fingerprint(source.collections))
