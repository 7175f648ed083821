"""What a run trains. The trainer knows tasks, and no model: a task says what there is to train, what is random about a
step, and what its loss is; everything else is the trainer's.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kind_jax.config import RunConfig
from kind_jax.config.check import require
from kind_jax.data.sets import Dataset
from kind_jax.errors import UserError
from kind_jax.nn.gate import Gate
from kind_jax.partition import Collections
from kind_jax.train.sharding import Rules

Batch = dict[str, Any]
"""Arrays by name, each with the batch as leading axis."""

AVERAGE, DONE = "average", "done"
"""Under what :class:`Averaging` tasks find the averaged weights and the number of finished steps."""

Metrics = dict[str, Float[Array, ""] | Int[Array, ""]]


class Loss(NamedTuple):
    """What a task makes of a step's samples.

    Attributes:
      value: the mean loss, which is differentiated.
      metrics: figures to log, ``loss`` among them.
      moved: collections that move without gradients (:data:`kind_jax.partition.MOVED`), as they are after the step.
    """

    value: Float[Array, ""]
    metrics: Metrics
    moved: Mapping[str, Any] = types.MappingProxyType({})


class Bank(NamedTuple):
    """The bank of tailors of a model that has some.

    Attributes:
      groups: rows of the bank.
      taken: how many rows a step takes out and works on, see :mod:`kind_jax.train.rows`; None if it works on all.
    """

    groups: int
    taken: int | None


class Drawn(Protocol):
    """A NamedTuple of arrays [B, ...]: a batch with everything random about its step.

    It is drawn for the whole batch, so that neither devices nor micro-batches change it. ``gate`` names the rows of the
    bank that samples switch on; the trainer replaces it where it takes rows out of the bank. A task without a bank has
    no need of it.
    """

    @property
    def gate(self) -> Gate: ...

    def _replace(self, **changes: Any) -> Any: ...


def check_task(task: object) -> None:
    """Refuse what is no task.

    Raises:
      UserError: it is none.
    """
    settled = isinstance(getattr(task, "config", None), RunConfig) and not isinstance(task, type)
    require(settled, "task", task, "a task, as kj.task_of gives it")


def check_whole(task: Task) -> None:
    """Refuse micro-batches where something needs all samples of a batch together.

    Raises:
      UserError: naming what does.
    """
    accumulate, reason = task.config.train.accumulate, task.whole_batch
    if accumulate > 1 and reason is not None:
        raise UserError(f"train.accumulate is {accumulate}, but it must be 1: {reason} needs the whole batch.")


@runtime_checkable
class Control(Protocol):
    """What is done to a run between some of its steps: like a bandit that judges a round of steps, and chooses what the
    next one trains.

    Its state is in collections that move without gradients, so that checkpoints hold it and a run resumes exactly. It
    is frozen and hashable, as a task is.
    """

    @property
    def every(self) -> int:
        """How many steps a round has; a turn comes before the first and after each."""
        ...

    def probe(self, dataset: Dataset) -> Mapping[str, np.ndarray]:
        """The batch that every turn sees, the same on every host; ``dataset`` is what the run trains on.

        Raises:
          UserError: the data set has too few records.
        """
        ...

    def turn(self, collections: Collections, probe: Batch, fixed: Collections) -> tuple[Mapping[str, Any], Metrics]:
        """What has moved, and figures of the round that has ended; one that is NaN says nothing. It is traced once."""
        ...


@runtime_checkable
class Task(Protocol):
    """Frozen and hashable: jit takes it as a static argument."""

    @property
    def config(self) -> RunConfig:
        """The settings of the run."""
        ...

    @property
    def bank(self) -> Bank | None:
        """None for a model without gates, whose ``Drawn`` needs none."""
        ...

    @property
    def whole_batch(self) -> str | None:
        """What needs all samples of a batch together, like ``BatchNorm``; such a task is not trained in micro-batches.
        None where nothing does."""
        ...

    @property
    def rules(self) -> Rules:
        """Where the leaves are sharded that :data:`kind_jax.train.sharding.RULES` does not know, or knows wrongly."""
        ...

    @property
    def held(self) -> dict[str, tuple[int, ...]]:
        """Rows that stay in leaves that train, by path: indices of the leading axis, from its end where negative."""
        ...

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What the input pipeline gives a step: shapes of the global batch."""
        ...

    def shapes(self) -> Collections:
        """The collections as ShapeDtypeStructs; takes no memory."""
        ...

    def init(self) -> Collections:
        """The weights of step 0 of a run that begins from no other model, the same on every host.

        Raises:
          UserError: the run must begin from another one.
        """
        ...

    def fixed(self) -> Collections:
        """Weights that every step reads and none changes, like a teacher's; empty where there are none.

        They are no part of a checkpoint, which records their hash: a run goes on with the same ones only. They are
        sharded by the same rules as those that are trained.
        """
        ...

    def fixed_shapes(self) -> Collections:
        """What :meth:`fixed` gives as ShapeDtypeStructs, without opening anything."""
        ...

    def columns(self, dataset: Dataset, collections: Collections) -> Mapping[str, np.ndarray]:
        """What the records of the training set have beside their image and label, by name: arrays with a row for each
        record, in order, of which a batch gets the rows of its own. Empty for most tasks.

        Every host calls it once, before the first step, with the weights of the state. What it follows from must be
        told by the settings: it is no part of the fingerprint of the input.
        """
        ...

    def draw(self, batch: Batch, key: PRNGKeyArray) -> Any:
        """The :class:`Drawn` of one step, whose key follows from the seed and the step number alone."""
        ...

    def loss(self, collections: Collections, drawn: Any, fixed: Collections) -> Loss:
        """The mean loss of samples that :meth:`draw` gave; ``fixed`` is what :meth:`fixed` gave."""
        ...

    def bound(self, dataset: Dataset, *, begins: bool) -> tuple[Task, list[str]]:
        """This task, completed by what follows from its data, and warnings about settings that leave it weak.

        Args:
          begins: whether the run is a new one: one that goes on is warned of what a new one is refused.

        Raises:
          UserError: model and data do not fit each other, or a setting starves the model.
        """
        ...

    def flops(self) -> float:
        """FLOPs of the matrix products of one step: forward, and twice that backward."""
        ...

    def watch(self, state: Any, fixed: Collections, mesh: Mesh, directory: Path, step: int) -> Mapping[str, float]:
        """What people look at every ``train.sample_every`` steps: pictures, written below the run's ``directory``, and
        figures, which are returned and logged.

        Every host calls it, with a :class:`kind_jax.train.state.TrainState` and what :meth:`fixed` gave, both placed on
        the mesh; the first alone writes.
        """
        ...


@runtime_checkable
class Controlled(Task, Protocol):
    """A task whose runs have rounds."""

    @property
    def control(self) -> Control | None:
        """None where these settings need none."""
        ...


@runtime_checkable
class Averaging(Task, Protocol):
    """A task whose loss may read the moving average of what it trains, which gets no gradient."""

    @property
    def reads_average(self) -> bool:
        """Whether it does with these settings: ``fixed`` then has, beside what :meth:`Task.fixed` gives, the averaged
        weights under :data:`AVERAGE` (the weights themselves where ``train.ema`` is None, and of the bank the rows that
        the step works on), and the number of finished steps under :data:`DONE`."""
        ...
