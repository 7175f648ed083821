"""Distillation: what a run of a student trains. The teacher is its fixed tree, and everything else is the student's
own task."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kind_jax import losses, model
from kind_jax.classifying import cost, network
from kind_jax.classifying.task import ClassifyTask
from kind_jax.config import OptimizerConfig
from kind_jax.config.networks import Network
from kind_jax.config.training import RuleConfig
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.distillation import cache, memory, parts, projectors, teacher
from kind_jax.distillation.config import DistilRun, student_run
from kind_jax.errors import UserError
from kind_jax.nn.gate import Gate
from kind_jax.nn.init import Initializer, ShapesOnly
from kind_jax.partition import MEMORY, PROJECTORS, Collections
from kind_jax.train import state as states
from kind_jax.train.freeze import manner
from kind_jax.train.sharding import Rules
from kind_jax.train.state import TrainState
from kind_jax.train.task import Bank, Batch, Loss

_SLOT = "slot"
_RULES: Rules = ((rf"{MEMORY}/.*/bank", ("fsdp",)), (rf"{MEMORY}/.*", ()))


class Drawn(NamedTuple):
    """What the student's task has drawn, and what the teacher and the memory need beside it.

    Attributes:
      samples: of the student's task.
      gate: theirs.
      slot, negatives: of CRD, see :mod:`kind_jax.distillation.memory`.
      features, logits: the teacher's, where they are cached.
    """

    samples: Any
    gate: Gate
    slot: Int[Array, " B"] | None = None
    negatives: Int[Array, "B K"] | None = None
    features: Float[Array, "B D"] | None = None
    logits: Float[Array, "B K"] | None = None


@dataclasses.dataclass(frozen=True)
class DistilTask:
    """See :class:`kind_jax.train.task.Task`."""

    config: DistilRun

    def __post_init__(self) -> None:
        # The rule must be there wherever there are projectors, and nobody should have to write it.
        object.__setattr__(self, "config", dataclasses.replace(self.config, optimizer=_optimizer(self.config)))

    @property
    def student(self) -> ClassifyTask:
        """The task of the same run without a teacher."""
        return _student(self.config)

    @property
    def network(self) -> Network:
        """The teacher's: what the run has recorded, or before it has, what the teacher says itself."""
        return self.config.distil.network or teacher.network(self.config)

    @property
    def bank(self) -> Bank | None:
        return self.student.bank

    @property
    def whole_batch(self) -> str | None:
        if self.config.distil.compares in ("align_uniform", "crd"):
            return f"distil.method {self.config.distil.method!r}"
        return self.student.whole_batch

    @property
    def rules(self) -> Rules:
        return (*_RULES, *self.student.rules)

    @property
    def held(self) -> dict[str, tuple[int, ...]]:
        return self.student.held

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        found, settings = self.student.batch(), self.config.distil
        size = self.config.train.batch
        if settings.compares == "crd":
            found |= {_SLOT: jax.ShapeDtypeStruct((size,), jnp.int32)}
        if settings.cache is not None:
            width, classes = network.feature_width(self.network), self.network.num_classes
            found |= {
                cache.FEATURES: jax.ShapeDtypeStruct((size, width), jnp.float32),
                cache.LOGITS: jax.ShapeDtypeStruct((size, classes), jnp.float32),
            }
        return found

    def shapes(self) -> Collections:
        return self.student.shapes() | jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), _beside(self.config, ShapesOnly())
        )

    def init(self) -> Collections:
        return self.student.init() | beside(self.config)

    def fixed(self) -> Collections:
        """The teacher, unless no step needs it."""
        return teacher.weights(self.config) if self._taught else {}

    def fixed_shapes(self) -> Collections:
        return model.definition(self.network)[1] if self._taught else {}

    def columns(self, dataset: Dataset, collections: Collections) -> dict[str, np.ndarray]:
        """Slots of the memory, and the outputs of the teacher where they are cached."""
        found, settings = dict(self.student.columns(dataset, collections)), self.config.distil
        if settings.compares == "crd":
            found[_SLOT] = memory.slots(_labels(dataset))
        if settings.cache is not None:
            found |= cache.columns(self.config, dataset, teacher.weights(self.config))
        return found

    def draw(self, batch: Batch, key: PRNGKeyArray) -> Drawn:
        """The student's own draws are those of a run without a teacher."""
        settings, samples = self.config.distil, self.student.draw(batch, key)
        negatives = None
        if settings.compares == "crd":
            key = jax.random.fold_in(key, 1)
            negatives = memory.draw_negatives(key, samples.labels, _counts(self.config), settings.negatives)
        return Drawn(
            samples, samples.gate, batch.get(_SLOT), negatives, batch.get(cache.FEATURES), batch.get(cache.LOGITS)
        )

    def loss(self, collections: Collections, drawn: Drawn, fixed: Collections) -> Loss:
        """The sum of the parts that have a weight; the others are not computed."""
        settings, weights = self.config.distil, self.config.distil.weights
        samples = drawn.samples._replace(gate=drawn.gate)
        mine, plain = self.student.outputs(collections, samples)
        value = weights.label * plain.value
        metrics = {"cross_entropy": plain.value, "accuracy": plain.metrics["accuracy"]}
        moved = dict(plain.moved)
        theirs = self._teacher(drawn, fixed) if settings.taught else None
        if theirs is not None and weights.logits:
            wanted = jnp.where(jnp.isfinite(mine.logits), theirs.logits, -jnp.inf)
            metrics["kd"] = losses.kd(mine.logits, wanted, settings.temperature)
            value += weights.logits * metrics["kd"]
        if theirs is not None and settings.compares is not None:
            compare = parts.PARTS[settings.compares]
            found = compare(settings, collections, drawn, mine.features, theirs, functools.partial(self._head, fixed))
            value += weights.embedding * found.embedding + weights.regression * found.regression
            metrics |= found.metrics
            moved |= found.moved
        return Loss(value, {"loss": value} | metrics, moved)

    def bound(self, dataset: Dataset, *, begins: bool) -> tuple[DistilTask, list[str]]:
        student, lines = self.student.bound(dataset, begins=begins)
        settings = self.config.distil
        places = {
            name: None if (path := getattr(settings, name)) is None else os.path.abspath(os.path.expanduser(path))
            for name in ("teacher", "cache")
        }
        config = dataclasses.replace(self.config, distil=dataclasses.replace(settings, **places))
        written: dict[str, Any] = {"source": None, "network": None, "counts": None}
        remarks: list[str] = []
        if settings.taught:
            known = teacher.check(config, dataset.class_names)
            written |= {"source": known.source, "network": known.network}
            remarks = known.remarks
        if settings.compares == "crd":
            labels = _labels(dataset)
            written["counts"] = tuple(np.bincount(labels, minlength=len(dataset.class_names)).tolist())
        if settings.cache is not None and not isinstance(dataset.source, MemorySource):
            raise UserError(
                f"distil.cache is {settings.cache!r}, but it must be None for images that are read from disk in every "
                "step, as some may be replaced by others; smaller sets are held in memory."
            )
        config = dataclasses.replace(
            config,
            data=student.config.data,
            distil=dataclasses.replace(config.distil, **written),
        )
        if settings.cache is not None:
            cache.check(config, dataset)
        return DistilTask(config), [*lines, *remarks]

    def flops(self) -> float:
        """The student forward and backward, the teacher forward where it is not cached, and the projectors."""
        settings, size = self.config.distil, self.config.train.batch
        found = self.student.flops()
        if settings.taught and settings.cache is None:
            found += size * cost.forward(self.network)
        kernels = [leaf for leaf in jax.tree.leaves(self.shapes().get(PROJECTORS, {})) if leaf.ndim == 2]
        return found + 3.0 * 2 * size * sum(leaf.size for leaf in kernels)

    def watch(self, state: TrainState, fixed: Collections, mesh: Mesh, directory: Path, step: int) -> dict[str, float]:
        """What the student's task looks at."""
        del fixed
        return self.student.look(_weights(self.config, state), mesh, directory, step)

    @property
    def _taught(self) -> bool:
        """Whether steps need the teacher's weights: its outputs may be cached, but for SRRL's use of its head."""
        settings = self.config.distil
        return settings.taught and (settings.cache is None or settings.compares == "srrl")

    def _teacher(self, drawn: Drawn, fixed: Collections) -> network.Outputs:
        """What the teacher makes of the images that the student sees, or has made of them."""
        if drawn.features is not None and drawn.logits is not None:
            return network.Outputs(drawn.features, drawn.logits)
        samples = drawn.samples
        return jax.lax.stop_gradient(network.of_labels(self.network, fixed, samples.images, samples.labels))

    def _head(self, fixed: Collections, features: Float[Array, "B D"]) -> Float[Array, "B K"]:
        return network.head(self.network, fixed, features)


def beside(config: DistilRun) -> Collections:
    """The first projectors and memory: what a run has beside its student."""
    seed = int(np.random.SeedSequence([config.train.seed, 1]).generate_state(1)[0])
    return _beside(config, Initializer(seed))


def _beside(config: DistilRun, init: Initializer) -> Collections:
    settings, compares = config.distil, config.distil.compares
    if compares is None:
        return {}
    mine, theirs = network.feature_width(config.model), network.feature_width(DistilTask(config).network)
    if compares == "srrl":
        return {PROJECTORS: {"connector": projectors.layers(projectors.connector(mine, theirs), init)}}
    found: Collections = {
        PROJECTORS: {
            side: projectors.layers(projectors.widths(settings.projector, width, settings.width), init)
            for side, width in (("student", mine), ("teacher", theirs))
        }
    }
    if compares == "crd":
        found[MEMORY] = memory.fresh(sum(_counts(config)), settings.width, init)
    return found


@functools.lru_cache(maxsize=32)
def _student(config: DistilRun) -> ClassifyTask:
    return ClassifyTask(student_run(config))


@functools.partial(jax.jit, static_argnums=0)
def _weights(config: DistilRun, state: TrainState) -> Collections:
    found = states.averaged(config, state)
    return {name: tree for name, tree in found.items() if name not in (PROJECTORS, MEMORY)}


def _counts(config: DistilRun) -> tuple[int, ...]:
    if config.distil.counts is None:
        raise UserError("distil.counts is missing, but it must say how many images each class has; runs write it.")
    return config.distil.counts


def _labels(dataset: Dataset) -> np.ndarray:
    if not isinstance(dataset.source, MemorySource):
        raise UserError(
            "distil.method is 'crd', but it must be another one for images that are read from disk in every step: its "
            "memory has a row for each image, and some may be replaced by others."
        )
    return np.asarray(dataset.source.labels)


def _optimizer(config: DistilRun) -> OptimizerConfig:
    """The optimizer's settings, with one for the projectors where the run has none: they decay as the student's head
    does."""
    settings = config.optimizer
    if config.distil.compares is None or any(rule.path.startswith(PROJECTORS) for rule in settings.rules):
        return settings
    decay = manner(settings, "params/head/kernel").setting(settings, "weight_decay")
    rule = RuleConfig(path=rf"{PROJECTORS}/.*", weight_decay=decay)
    return dataclasses.replace(settings, rules=(*settings.rules, rule))
