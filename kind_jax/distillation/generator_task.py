"""A composed generator that learns to predict what the whole one predicts.

Both see the same noisy images at the same times; what the student gave up when components were left out, it makes up
for with those that it has kept. C: channels of the output.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from kind_jax import model
from kind_jax.classes import mismatch, readable
from kind_jax.config import Config
from kind_jax.config.roles import Role, compare
from kind_jax.data.sets import Dataset
from kind_jax.deploy import cost
from kind_jax.deploy.bundle import Bundle, open_bundle
from kind_jax.diffusing import fits, samples
from kind_jax.diffusing.task import DiffusionTask
from kind_jax.distillation import teacher
from kind_jax.distillation.generator_config import GeneratorRun, composed_run
from kind_jax.errors import UserError
from kind_jax.losses import feature
from kind_jax.nn.gate import ClassGate, Gate
from kind_jax.partition import TAILORS, Collections, fingerprint
from kind_jax.train import state as states
from kind_jax.train.sharding import Rules
from kind_jax.train.state import TrainState
from kind_jax.train.task import Bank, Batch, Loss

_ALIKE = {Role.IMAGES, Role.TIMES}


class Drawn(NamedTuple):
    """What the denoising task has drawn; ``gate`` is over the student's bank, ``teacher`` over the teacher's."""

    samples: Any
    gate: Gate
    teacher: Gate


@dataclasses.dataclass(frozen=True)
class GeneratorTask:
    """See :class:`kind_jax.train.task.Task`."""

    config: GeneratorRun

    @property
    def student(self) -> DiffusionTask:
        """The task of the same run without a teacher."""
        return _student(self.config)

    @property
    def bank(self) -> Bank:
        return Bank(len(self.config.aboard), None)

    @property
    def whole_batch(self) -> None:
        return None

    @property
    def rules(self) -> Rules:
        return self.student.rules

    @property
    def held(self) -> dict[str, tuple[int, ...]]:
        return {}

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        return self.student.batch()

    def shapes(self) -> Collections:
        return _aboard(model.definition(self.config.model)[1], len(self.config.aboard))

    def init(self) -> Collections:
        raise UserError(
            "a composed generator is distilled by kind-jax distil RUN --into COMPOSED, which gives weights."
        )

    def fixed(self) -> Collections:
        """The teacher, with the tailors of the classes that are trained; nothing where its predictions do not count."""
        if not self.config.distil.prediction:
            return {}
        bundle = _opened(self.config)
        if (found := fingerprint(bundle.collections)) != self.config.distil.source:
            raise teacher.another(self.config.distil, found)
        return {name: jax.tree.map(np.asarray, tree) for name, tree in bundle.collections.items()}

    def fixed_shapes(self) -> Collections:
        if not self.config.distil.prediction:
            return {}
        return _aboard(model.definition(self._network)[1], len(_groups(self.config)))

    def columns(self, dataset: Dataset, collections: Collections) -> dict[str, np.ndarray]:
        del dataset, collections
        return {}

    def draw(self, batch: Batch, key: PRNGKeyArray) -> Drawn:
        settings, found = self.config.distil, self.student.draw(batch, key)
        gate = self.gates(found.labels, found.null)
        theirs = model.class_gate(self._network, _groups(self.config)) if settings.prediction else self.gates
        return Drawn(found._replace(gate=gate), gate, theirs(found.labels, found.null))

    def loss(self, collections: Collections, drawn: Drawn, fixed: Collections) -> Loss:
        """The mean squared difference of predictions, the denoising loss, or both."""
        settings, seen = self.config.distil, drawn.samples._replace(gate=drawn.gate)
        output = self.student.predict(collections, seen)
        parts = self.student.losses(output, seen)
        metrics = {"denoising": parts["loss"]}
        value = settings.data * parts["loss"]
        if settings.prediction:
            whole = DiffusionTask(dataclasses.replace(self.student.config, model=self._network))
            theirs = jax.lax.stop_gradient(whole.predict(fixed, seen._replace(gate=drawn.teacher)))
            metrics["prediction"] = feature(output, theirs)
            value += settings.prediction * metrics["prediction"]
        return Loss(value, {"loss": value} | metrics)

    def bound(self, dataset: Dataset, *, begins: bool) -> tuple[GeneratorTask, list[str]]:
        del begins
        config, settings = self.config, self.config.distil
        self._check_data(dataset)
        plain = fits.with_scale(composed_run(config), dataset)
        if not settings.prediction:
            config = dataclasses.replace(config, data=plain.data, distil=dataclasses.replace(settings, network=None))
            return GeneratorTask(config), []
        if settings.teacher is None:
            raise UserError("distil.teacher is missing, but it must name the whole model: a run or an artifact.")
        settings = dataclasses.replace(settings, teacher=os.path.abspath(os.path.expanduser(settings.teacher)))
        bundle = _opened(dataclasses.replace(config, distil=settings))
        found, theirs = fingerprint(bundle.collections), bundle.config
        if settings.source not in (None, found):
            raise teacher.another(settings, found)
        if (odd := mismatch(bundle.class_names, dataset.class_names)) is not None:
            raise UserError(
                f"distil.teacher is {settings.teacher!r}, but its classes must be those of the data, in their order: "
                f"{odd}."
            )
        if found == config.transfer.source:
            raise UserError(f"distil.teacher is {settings.teacher!r}, which has the very weights of the student.")
        for name, ours, other in [
            *compare(composed_run(config), theirs, _ALIKE),
            *((f"diffusion.{n}", getattr(config.diffusion, n), getattr(theirs.diffusion, n)) for n in _PROCESS),
            *((f"model.{n}", getattr(config.model, n), getattr(theirs.model, n)) for n in _OUTPUT),
        ]:
            if ours != other:
                raise UserError(f"{name} is {ours!r:.200}, but distil.teacher has {other!r:.200}.")
        settings = dataclasses.replace(settings, source=found, network=theirs.model)
        return GeneratorTask(dataclasses.replace(config, data=plain.data, distil=settings)), []

    def _check_data(self, dataset: Dataset) -> None:
        config, served = self.config, self.config.distil.classes
        shape = (config.model.size, config.model.size, config.model.channels)
        if dataset.image_shape != shape:
            raise UserError(f"the student draws images {shape}, but the data set has {dataset.image_shape}.")
        if len(dataset.class_names) != config.model.num_classes:
            raise UserError(
                f"the student was composed of a model of {config.model.num_classes} classes, but the data set has "
                f"{len(dataset.class_names)}."
            )
        if strange := [c for c, n in enumerate(dataset.counts or ()) if n and c not in served]:
            names = [dataset.class_names[c] for c in served]
            raise UserError(
                f"data.only is {config.data.only}, which takes in the class {dataset.class_names[strange[0]]!r}, but "
                f"it must be among those that the student serves: {readable(names)}."
            )

    def flops(self) -> float:
        """The student forward and backward, and the teacher forward."""
        found, size = self.student.flops(), self.config.train.batch
        return found + (cost.products(self._network, size).total if self.config.distil.prediction else 0.0)

    def watch(self, state: TrainState, fixed: Collections, mesh: Mesh, directory: Path, step: int) -> dict[str, float]:
        """A grid of samples of the classes that the student serves."""
        del fixed
        weights = _weights(self.config, state)
        path = directory / "samples" / f"step_{step:07d}.png"
        samples.save_samples(
            composed_run(self.config), weights, mesh, path, self.config.distil.classes, self.config.aboard
        )
        return {}

    @property
    def gates(self) -> ClassGate:
        """Over the student's bank."""
        return model.class_gate(self.config.model, self.config.aboard)

    @property
    def _network(self) -> Any:
        assert self.config.distil.network is not None, "the teacher's is known when the run is bound to its data"
        return self.config.distil.network


_PROCESS = ("process", "schedule", "prediction", "train_steps")
_OUTPUT = ("size", "channels", "learn_sigma", "num_classes")


def _groups(config: GeneratorRun) -> tuple[int, ...]:
    """Those of the teacher's groups that serve the classes, as :func:`open_bundle` reads them."""
    network = config.distil.network
    assert network is not None
    return tuple(sorted({network.group_of_class[c] for c in config.distil.classes}))


def _aboard(shapes: Collections, groups: int) -> Collections:
    """Shapes with a bank of so many groups."""
    bank = jax.tree.map(lambda s: jax.ShapeDtypeStruct((groups, *s.shape[1:]), s.dtype), shapes[TAILORS])
    return {**shapes, TAILORS: bank}


def _opened(config: GeneratorRun) -> Bundle:
    assert config.distil.teacher is not None
    return open_bundle(config.distil.teacher, classes=config.distil.classes, kind=Config)


@functools.lru_cache(maxsize=32)
def _student(config: GeneratorRun) -> DiffusionTask:
    return DiffusionTask(composed_run(config))


@functools.partial(jax.jit, static_argnums=0)
def _weights(config: GeneratorRun, state: TrainState) -> Collections:
    return states.averaged(config, state)
