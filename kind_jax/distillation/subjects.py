"""What a student and its teacher are compared by, for each kind of model that is distilled module by module.

Dimensions: B samples, T tokens, L blocks, F features of a state.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kind_jax import losses, model
from kind_jax.captioning.config import CaptionRun
from kind_jax.captioning.losses import words
from kind_jax.captioning.network import forward as caption_flops
from kind_jax.captioning.task import CaptionTask
from kind_jax.classifying import cost as classifier_cost
from kind_jax.classifying import network as classifier
from kind_jax.classifying.config import ClassifyRun
from kind_jax.classifying.task import ClassifyTask
from kind_jax.config import Config
from kind_jax.config.roles import Role, compare
from kind_jax.deploy import cost as diffusion_cost
from kind_jax.diffusing.task import DiffusionTask
from kind_jax.nn.gate import Gate
from kind_jax.partition import Collections
from kind_jax.train.task import Loss


class Seen(NamedTuple):
    """What a model makes of a batch.

    Attributes:
      loss: its own.
      predictions: logits, or what a diffusion transformer gives.
      states: by name, behind each block.
      valid: which tokens of the states of a name count; all do of a name that is not there.
    """

    loss: Loss
    predictions: Array
    states: dict[str, Float[Array, "L B T F"]]
    valid: dict[str, Bool[Array, "B T"]]


class Subject(Protocol):
    """One kind of model; its task is that of a plain run of it."""

    def seen(self, task: Any, collections: Collections, samples: Any) -> Seen:
        """What a model makes of samples that its task has drawn."""
        ...

    def gate(self, network: Any, samples: Any) -> Gate:
        """The gate of a teacher with these settings for a student's samples."""
        ...

    def difference(self, mine: Seen, theirs: Seen, samples: Any, temperature: float) -> Float[Array, ""]:
        """How far predictions are from the teacher's."""
        ...

    def contradictions(self, student: Any, teacher: Any) -> list[tuple[str, Any, Any]]:
        """Settings of two runs that must be the same for one model to teach the other: name, the student's, the
        teacher's."""
        ...

    def forward(self, network: Any, batch: int) -> float:
        """FLOPs of a model's products for a batch, forward."""
        ...

    def look(self, task: Any, *how: Any) -> dict[str, float]:
        """What people look at: of weights, the mesh, the run's folder and the step."""
        ...


class Classifiers:
    """Vision transformers: predictions are logits [B, K]."""

    def seen(self, task: ClassifyTask, collections: Collections, samples: Any) -> Seen:
        found, loss = task.outputs(collections, samples, see=True)
        return Seen(loss, found.logits, found.states, {})

    def gate(self, network: Any, samples: Any) -> Gate:
        return classifier.gate_of(network, classifier.superclass_of(network, samples.labels))

    def difference(self, mine: Seen, theirs: Seen, samples: Any, temperature: float) -> Float[Array, ""]:
        del samples
        wanted = jnp.where(jnp.isfinite(mine.predictions), theirs.predictions, -jnp.inf)
        return losses.kd(mine.predictions, wanted, temperature)

    def contradictions(self, student: ClassifyRun, teacher: ClassifyRun) -> list[tuple[str, Any, Any]]:
        return _of_model(student, teacher, ("network", "size", "channels", "num_classes"))

    def forward(self, network: Any, batch: int) -> float:
        return batch * classifier_cost.forward(network)

    def look(self, task: Any, *how: Any) -> dict[str, float]:
        return task.look(*how)


class Generators:
    """Diffusion transformers: predictions are what they make of noisy images [B, H, W, C]."""

    def seen(self, task: DiffusionTask, collections: Collections, samples: Any) -> Seen:
        output, states = task.seen(collections, samples)
        parts = task.losses(output, samples)
        return Seen(Loss(parts["loss"], parts), output, states, {})

    def gate(self, network: Any, samples: Any) -> Gate:
        return model.class_gate(network)(samples.labels, samples.null)

    def difference(self, mine: Seen, theirs: Seen, samples: Any, temperature: float) -> Float[Array, ""]:
        del samples, temperature
        return losses.feature(mine.predictions, theirs.predictions)

    def contradictions(self, student: Config, teacher: Config) -> list[tuple[str, Any, Any]]:
        names = ("process", "schedule", "prediction", "train_steps")
        process = [(f"diffusion.{n}", getattr(student.diffusion, n), getattr(teacher.diffusion, n)) for n in names]
        times = [(each.name, each.now, each.before) for each in compare(teacher, student, {Role.TIMES})]
        network = _of_model(student, teacher, ("size", "channels", "learn_sigma", "num_classes"))
        return [each for each in process if each[1] != each[2]] + times + network

    def forward(self, network: Any, batch: int) -> float:
        return diffusion_cost.products(network, batch).total

    def look(self, task: Any, *how: Any) -> dict[str, float]:
        return task.show(*how)


class Captioners:
    """CoCa: predictions are the logits of words [B, T, V]."""

    def seen(self, task: CaptionTask, collections: Collections, samples: Any) -> Seen:
        found, loss = task.outputs(collections, samples)
        real = words(samples.tokens)
        text = jnp.concatenate([real, jnp.ones((len(real), 1), bool)], axis=1)  # CLS, the last one, is no padding
        return Seen(loss, found.logits, dict(found.states), {"text": text, "multimodal": words(samples.tokens[:, 1:])})

    def gate(self, network: Any, samples: Any) -> Gate:
        del network
        return samples.gate

    def difference(self, mine: Seen, theirs: Seen, samples: Any, temperature: float) -> Float[Array, ""]:
        mask = words(samples.tokens[:, 1:])
        vocabulary = mine.predictions.shape[-1]
        ours, wanted = (each.predictions.reshape(mask.size, vocabulary) for each in (mine, theirs))
        return losses.kd(ours, wanted, temperature, mask.reshape(mask.size))

    def contradictions(self, student: CaptionRun, teacher: CaptionRun) -> list[tuple[str, Any, Any]]:
        ours, theirs = student.text.tokenizer, teacher.text.tokenizer
        found = [("text.tokenizer", ours, theirs)] if ours != theirs else []
        return found + _of_model(student, teacher, ("size", "channels", "vocabulary", "context"))

    def forward(self, network: Any, batch: int) -> float:
        return batch * caption_flops(network)

    def look(self, task: Any, *how: Any) -> dict[str, float]:
        return task.look(*how)


def _of_model(student: Any, teacher: Any, names: tuple[str, ...]) -> list[tuple[str, Any, Any]]:
    pairs = [(f"model.{n}", getattr(student.model, n), getattr(teacher.model, n)) for n in names]
    return [each for each in pairs if each[1] != each[2]]


SUBJECTS: dict[type, Subject] = {ClassifyRun: Classifiers(), Config: Generators(), CaptionRun: Captioners()}


def of(plain: Any) -> Subject:
    """The subject of a plain run."""
    return SUBJECTS[type(plain)]


def taught_by(plain: Any, network: Any) -> Any:
    """A plain run whose model is the teacher's."""
    return dataclasses.replace(plain, model=network)
