"""What happens before the first step: what can be refused is, then the run's folder is taken, then there is a state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from kind_jax import partition
from kind_jax.config import RunConfig
from kind_jax.config.run import read_back
from kind_jax.data import grouped, pipeline
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset
from kind_jax.data.summary import summary
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import hosts, sharding
from kind_jax.train import state as states
from kind_jax.train.checkpoint import Checkpoints
from kind_jax.train.dealt import Dealt
from kind_jax.train.extended import record
from kind_jax.train.fits import check_memory
from kind_jax.train.history import Found, Verification
from kind_jax.train.layout import Layout, deal_of, described, layout_of, shard_of_class
from kind_jax.train.metrics import check_extras
from kind_jax.train.resume import Resume, begun, choose, restore, set_aside_refused, verification
from kind_jax.train.run import check, save_config, with_places
from kind_jax.train.state import TrainState
from kind_jax.train.task import Task, check_whole
from kind_jax.untrusted.text import printable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Looked:
    """A run that nothing speaks against; nothing is written yet. ``shapes`` are those of a checkpoint."""

    task: Task
    dataset: Dataset
    mesh: Mesh
    layout: Layout
    grouping: grouped.Grouping | None
    shapes: TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A run whose next step can be taken.

    Attributes:
      bank: how the state's tailors are dealt to the devices.
      fixed: weights that steps read and do not change.
      data: the input pipeline, where the state left it; ``placement`` says where its batches go.
      meta: what every checkpoint records beside its arrays.
      found: the checkpoint that it goes on from; ``unverified`` reads it meanwhile, where that was put off.
      notes: a sentence about everything unusual.
    """

    state: TrainState
    shardings: TrainState
    bank: Dealt
    fixed: partition.Collections
    data: Any
    placement: NamedSharding
    checkpoints: Checkpoints
    meta: dict[str, Any]
    found: Found
    unverified: Verification | None
    notes: list[str]


def look(config: RunConfig, directory: Path, *, fresh: bool, resume: Resume = "auto") -> Looked:
    """Open the data and check that everything fits, saying what there is.

    Args:
      fresh: whether the run, if it is not there yet, begins from weights of its own.
      resume: whether a run in ``directory`` is continued, or extended.

    Raises:
      UserError: the folder, the data set, the mesh or a setting does not fit.
    """
    read_back(config)
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config.train.batch, config.train.accumulate, mesh)
    if hosts.is_first():  # which writes them
        check_extras(config.train.tensorboard, config.train.wandb)
    config = with_places(config)
    _say(f"opening the data set {_named(config)} ...")
    dataset = open_dataset(config.data, "train")
    for line in summary(dataset):
        _say(line)
    task, warnings = task_of(config).bound(dataset, begins=fresh and not (directory / "config.json").is_file())
    for line in warnings:
        _say(line)
    shapes = states.abstract(task)  # refuses a config that leaves nothing to train
    check_whole(task)
    layout = layout_of(task, mesh)
    grouping = _grouping(dataset, task, layout)
    for line in described(layout, task):
        _say(line)
    if grouping is not None:
        every = "only" not in dataset.fingerprint
        for line in grouped.check(grouping, dataset.class_names, task.config.train.batch, all_classes=every):
            _say(line)
    check_memory(task, Dealt(task, layout, mesh).shapes(shapes), mesh)
    _say(_parameters(shapes.collections))
    check(directory, task.config, extend=resume == "extend")  # before anything is written, the lock included
    return Looked(task=task, dataset=dataset, mesh=mesh, layout=layout, grouping=grouping, shapes=shapes)


def start(
    looked: Looked, directory: Path, resume: Resume, initial: Callable[[], partition.Collections] | None
) -> Opened:
    """The state of a run in a folder that this process has locked: from the newest good checkpoint, or fresh.

    A fresh folder says at once whose it is, should we be killed; but first comes everything that may be refused.

    Raises:
      UserError: the folder or its checkpoints do not fit.
    """
    task, config, mesh = looked.task, looked.task.config, looked.mesh
    hosts.shared(directory)
    # Another process may have begun a run there meanwhile.
    remarks = check(directory, config, extend=resume == "extend")
    hosts.barrier("checked")  # before the first host writes into the folder

    placement, bank = sharding.batch_sharding(mesh), Dealt(task, looked.layout, mesh)
    grouping = looked.grouping
    data = _batches(looked.dataset, config, placement, grouping)
    fingerprint = pipeline.fingerprint(
        looked.dataset, batch=config.train.batch, seed=config.data.seed, grouping=grouping
    )
    if fixed := task.fixed():  # beside the data: what a step sees that is no part of the state
        fingerprint["fixed"] = partition.fingerprint(fixed)

    found = choose(directory, resume, config.train.verify)
    fresh = found.step is None
    _say("making the weights of step 0 ..." if fresh else f"reading the checkpoint of step {found.step} ...")
    weights = (initial or task.init)() if fresh else None
    if hosts.is_first() and not (directory / "config.json").is_file():
        save_config(directory, config)
    shardings = sharding.shard_like(looked.shapes, mesh, task.rules)
    checkpoints = Checkpoints(directory / "checkpoints", config)
    if weights is None:
        placed = jax.tree.map(
            lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), looked.shapes, shardings
        )
        state, found, dealt_anew = restore(checkpoints, found, placed, data, fingerprint)
        remarks += dealt_anew
    else:
        state = begun(task, weights, shardings)
        del weights
    if (done := int(state.step)) > config.train.steps:
        raise UserError(f"train.steps is {config.train.steps}, but {directory} has trained for {done} steps already.")
    if hosts.is_first():
        remarks += record(directory, config, done) if resume == "extend" else []
        save_config(directory, config)
    if columns := task.columns(looked.dataset, state.collections):
        position = data.get_state()
        data = _batches(dataclasses.replace(looked.dataset, columns=columns), config, placement, grouping)
        data.set_state(position)
    return Opened(
        state=bank.deal(state),
        shardings=sharding.shard_like(bank.shapes(looked.shapes), mesh, task.rules),
        bank=bank,
        fixed=jax.device_put(fixed, sharding.shard_like(fixed, mesh, task.rules)),
        data=data,
        placement=placement,
        checkpoints=checkpoints,
        meta={"fingerprint": fingerprint, "class_names": list(looked.dataset.class_names)},
        found=found,
        unverified=verification(directory, found),
        notes=set_aside_refused(directory, found) + (remarks if done else []),
    )


def _grouping(dataset: Dataset, task: Task, layout: Layout) -> grouped.Grouping | None:
    m, deal = task.config.data.per_class, deal_of(task, layout)
    if m is None:
        return None
    if layout.shards == 1 or deal is None:
        return grouped.of_dataset(dataset, m)
    settings: Any = task.config
    return grouped.of_dataset(dataset, m, shard_of_class(deal, settings.model.group_of_class), layout.replicas)


def _batches(dataset: Dataset, config: RunConfig, placement: NamedSharding, grouping: grouped.Grouping | None) -> Any:
    """This host's share of the input."""
    shard, shards = sharding.share_of_batch(placement, config.train.batch)
    return pipeline.batches(
        dataset, batch=config.train.batch, seed=config.data.seed, shard=shard, shards=shards,
        workers=config.data.workers, grouping=grouping,
    )  # fmt: skip


def _say(message: str) -> None:
    """What goes on before there is a progress bar."""
    if hosts.is_first():
        print(message, flush=True)


def _named(config: RunConfig) -> str:
    where = config.data.name or config.data.path
    return printable(f"{config.data.source} {where}" if where else config.data.source, 500)


def _parameters(collections: partition.Collections) -> str:
    learned = {name: tree for name, tree in collections.items() if name != partition.MEMORY}
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in learned.items()}
    parts = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)
    return f"{sum(sizes.values()):,} parameters: {parts}"
