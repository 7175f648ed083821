"""Incubation: what a run of one module trains. The loss is that of the whole hybrid, whatever kind of network it is."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from kind_jax import flops, model, partition
from kind_jax.assembling import cuts, held, meta, modules
from kind_jax.assembling.config import ModuleRun, whole_run
from kind_jax.config import ModelConfig, OptimizerConfig
from kind_jax.config.training import RuleConfig
from kind_jax.data.sets import Dataset
from kind_jax.nn.gate import Gate
from kind_jax.partition import COLLECTIONS, PARAMS, STATS, TAILORS, Collections
from kind_jax.tasks import task_of
from kind_jax.train import freeze
from kind_jax.train import state as states
from kind_jax.train.sharding import Rules
from kind_jax.train.state import TrainState
from kind_jax.train.step import draw, gradients
from kind_jax.train.task import Bank, Batch, Loss, Task

# Stacks of a hybrid's own have a depth axis, unlike blocks of different forms, which are called the same.
_STACKED: Rules = (
    (r"learngenes/blocks/\d+/.*/u", (None, "fsdp", "tensor")),
    (r"learngenes/blocks/\d+/.*/v", (None, "tensor", "fsdp")),
    (r"learngenes/blocks/\d+/.*/s", (None, "tensor")),
    (r"tailors/blocks/\d+/.*/u_t", (None, None, "fsdp")),
    (r"tailors/blocks/\d+/.*/v_t", (None, None, None, "fsdp")),
    (r"params/blocks/\d+/.*/kernel", (None, "fsdp")),
)


class Drawn(NamedTuple):
    """What the hybrid's own task has drawn.

    Attributes:
      samples: with their gates over the whole bank, which the frozen modules keep.
      gate: the same over the rows of the trained module's bank that a step takes out.
    """

    samples: Any
    gate: Gate


class _Base(Task, Protocol):
    """A task whose network can be divided."""

    def show(self, weights: Collections, mesh: Mesh, directory: Path, step: int) -> Mapping[str, float]:
        """What people look at, of weights in hand."""
        ...


@dataclasses.dataclass(frozen=True)
class ModuleTask:
    """See :class:`kind_jax.train.task.Task`. It trains the leaves of one module; the others are its ``fixed`` ones."""

    config: ModuleRun

    def __post_init__(self) -> None:
        _ = self.config.module.place  # refused first of all

    @property
    def base(self) -> _Base:
        """The task of the hybrid."""
        return _base(self.config)

    @property
    def bank(self) -> Bank | None:
        return self.base.bank

    @property
    def whole_batch(self) -> str | None:
        return self.base.whole_batch

    @property
    def rules(self) -> Rules:
        if self.config.module.frozen == "replicated":
            return (*((re.escape(path), ()) for path in partition.flatten(self.fixed_shapes())), *self.base.rules)
        return (*_STACKED, *self.base.rules)

    @property
    def held(self) -> dict[str, tuple[int, ...]]:
        return {}

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        return self.base.batch()

    def shapes(self) -> Collections:
        return held.shapes(self.config)

    def init(self) -> Collections:
        """See :func:`beginning`."""
        config = self.config
        needed = config.module.init == "meta" or isinstance(config.model, ModelConfig)
        return beginning(config, meta.weights(config) if needed else {})

    def fixed(self) -> Collections:
        """See :func:`around`."""
        return around(self.config, meta.weights(self.config)) if len(self.config.module.depths) > 1 else {}

    def fixed_shapes(self) -> Collections:
        settings, network = self.config.module, self.config.model
        parts = {k: modules.shapes(network, settings.around, k) for k in range(len(settings.depths))}
        del parts[settings.place]
        return _overlaid(self.config, parts) if parts else {}

    def columns(self, dataset: Dataset, collections: Collections) -> Mapping[str, np.ndarray]:
        return self.base.columns(dataset, collections)

    def draw(self, batch: Batch, key: PRNGKeyArray) -> Drawn:
        samples = self.base.draw(batch, key)
        return Drawn(samples, samples.gate)

    def loss(self, collections: Collections, drawn: Drawn, fixed: Collections) -> Loss:
        """The loss of the hybrid. The frozen modules come without tangents: none of their weights is differentiated,
        and nothing at all is behind the first that trains."""
        if self.bank is not None and self.bank.taken is not None:
            fixed = {**fixed, TAILORS: _rows(fixed.get(TAILORS, {}), drawn, self.bank.taken)}
        weights = hybrid_weights(self.config, collections, fixed)
        found = self.base.loss(weights, drawn.samples._replace(gate=drawn.gate), {})
        if STATS not in found.moved:
            return found
        settings = self.config.module
        own = cuts.take(self.config.model, {STATS: found.moved[STATS]}, settings.hybrid, settings.place)[STATS]
        return found._replace(moved={STATS: own})

    def bound(self, dataset: Dataset, *, begins: bool) -> tuple[ModuleTask, list[str]]:
        base, lines = self.base.bound(dataset, begins=begins)
        module = self.config.module
        if len(module.depths) > 1:
            module = dataclasses.replace(module, meta=None if module.meta is None else os.path.abspath(module.meta))
            found, remarks = meta.check(dataclasses.replace(self.config, module=module), dataset.class_names)
            module, lines = dataclasses.replace(module, source=found), [*lines, *remarks]
        config = dataclasses.replace(
            self.config, data=base.config.data, module=module, optimizer=_optimizer(self.config)
        )
        return ModuleTask(config), lines

    def flops(self) -> float:
        """Forward through all modules, and backward through the trained one, and through activations alone behind it;
        counted on the program."""
        return _flops(self.config)

    def watch(
        self, state: TrainState, fixed: Collections, mesh: Mesh, directory: Path, step: int
    ) -> Mapping[str, float]:
        """What the hybrid's task shows: the frozen modules around the averaged weights of the one that trains."""
        return self.base.show(_hybrid(self.config, state, fixed), mesh, directory, step)


def hybrid_network(config: ModuleRun) -> Any:
    """The network of the hybrid, with the modules apart."""
    settings = config.module
    return cuts.staged(config.model, settings.hybrid, settings.place, frozen_paths=settings.frozen_paths)


def around(config: ModuleRun, whole: Collections) -> Collections:
    """The frozen modules of a hybrid: what a step takes as ``fixed``.

    Args:
      whole: the collections of the meta model.
    """
    settings, network = config.module, config.model
    others = [k for k in range(len(settings.depths)) if k != settings.place]
    return _overlaid(config, {k: cuts.take(network, whole, settings.around, k) for k in others}) if others else {}


def beginning(config: ModuleRun, whole: Collections) -> Collections:
    """The weights of step 0 of a module: fresh ones, which depend on the seed and the module's number. What conditions
    every block of a diffusion transformer, and with ``module.init`` all, is the meta model's.

    Args:
      whole: the collections of the meta model; empty where nothing of it is needed.
    """
    settings, network = config.module, config.model
    k, hybrid = settings.place, settings.hybrid
    if settings.init == "meta":
        return cuts.repeated(cuts.take(network, whole, settings.around, k), settings.depths[k])
    # Modules that began alike would be no independent ones.
    seed = int(np.random.SeedSequence([config.train.seed, k]).generate_state(1)[0])
    found = cuts.take(network, model.init(cuts.resized(network, hybrid), seed), hybrid, k)
    condition = {name: whole[PARAMS][name] for name in cuts.CONDITION if name in found[PARAMS]}
    return {**found, PARAMS: {**found[PARAMS], **condition}}


def hybrid_weights(config: ModuleRun, part: Collections, fixed: Collections) -> Collections:
    """The collections of :func:`hybrid_network`."""
    own = cuts.named(config.model, part, config.module.place, len(config.module.depths))
    return partition.overlay({name: {} for name in own} | fixed, own)


@functools.lru_cache(maxsize=32)
def _base(config: ModuleRun) -> Any:
    return task_of(whole_run(config, model=hybrid_network(config)))


def _overlaid(config: ModuleRun, parts: Mapping[int, Collections]) -> Collections:
    found: Collections = {name: {} for name in COLLECTIONS}
    for k, part in parts.items():
        found = partition.overlay(found, cuts.named(config.model, part, k, len(config.module.depths)))
    return found


def _rows(tailors: Any, drawn: Drawn, taken: int) -> Any:
    """The rows of the frozen modules' banks that a step takes out of the trained one's, in the same order."""
    groups = jnp.zeros(taken, jnp.int32).at[drawn.gate.index.reshape(-1)].set(drawn.samples.gate.index.reshape(-1))
    return jax.tree.map(lambda leaf: leaf[groups], tailors)


@functools.partial(jax.jit, static_argnums=0)
def _hybrid(config: ModuleRun, state: TrainState, fixed: Collections) -> Collections:
    return hybrid_weights(config, states.averaged(config, state), fixed)


def _optimizer(config: ModuleRun) -> OptimizerConfig:
    """The optimizer's settings for the leaves of this module: of the rules, those that are about some of them.

    Raises:
      UserError: a rule is about no leaf of the whole network.
    """
    settings, part = config.optimizer, held.shapes(config)
    rules = settings.rules
    if config.module.decay_tokens:
        manner = freeze.manner(settings, "params/patch_embed/kernel")
        decay = manner.setting(settings, "weight_decay")
        rules = (RuleConfig(path=r"params/(class_token|position)", weight_decay=decay), *rules)
    rules = (RuleConfig(path=rf"params/({'|'.join(cuts.CONDITION)})/.*", freeze=True), *rules)
    paths = list(partition.flatten(part))
    known = list(partition.flatten(model.definition(cuts.resized(config.model, config.module.around))[1]))
    kept: list[RuleConfig] = []
    for i, rule in enumerate(rules):
        there = any(re.fullmatch(rule.path, path) for path in paths)
        elsewhere = any(re.fullmatch(rule.path, path) for path in known)
        ours = len(rules) - i > len(settings.rules)
        if (there or not (elsewhere or ours)) and rule not in kept:  # what is about no module at all is refused later
            kept.append(rule)
    return dataclasses.replace(settings, rules=tuple(kept))


@functools.lru_cache(maxsize=32)
def _flops(config: ModuleRun) -> float:
    if getattr(config.model, "remat", False):  # what is computed again is not counted
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, remat=False))
    task = ModuleTask(config)

    def f(collections: Collections, batch: Batch, fixed: Collections) -> Any:
        drawn: Any = draw(task, batch, jnp.int32(0))
        if task.bank is not None and task.bank.taken is not None:
            taken = jnp.arange(drawn.gate.index.size).reshape(drawn.gate.index.shape) % task.bank.taken
            drawn = drawn._replace(gate=Gate(taken, drawn.gate.weight))
        return gradients(task, collections, drawn, fixed)

    shapes = task.shapes()
    if task.bank is not None and task.bank.taken is not None:
        rows = task.bank.taken
        shapes[TAILORS] = jax.tree.map(lambda s: jax.ShapeDtypeStruct((rows, *s.shape[1:]), s.dtype), shapes[TAILORS])
    return flops.count(jax.make_jaxpr(f)(shapes, task.batch(), task.fixed_shapes()))
