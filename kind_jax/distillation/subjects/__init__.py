"""What a student and its teacher are compared by, for each kind of model that is distilled module by module.

Dimensions: B samples, T tokens, L blocks, F features of a state.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float

from kind_jax.kinds import load
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
    states: dict[str, Float[Array, ...]]
    valid: dict[str, Bool[Array, "B _"]]


@runtime_checkable
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


SUBJECTS = {
    "classification": "kind_jax.distillation.subjects.classifiers:Classifiers",
    "diffusion": "kind_jax.distillation.subjects.generators:Generators",
    "captioning": "kind_jax.distillation.subjects.captioners:Captioners",
}
"""By kind of run, imported when it is needed."""


def of(plain: Any) -> Subject:
    """The subject of a plain run."""
    return load(SUBJECTS[plain.task])()


def taught_by(plain: Any, network: Any) -> Any:
    """A plain run whose model is the teacher's."""
    return dataclasses.replace(plain, model=network)


def of_model(student: Any, teacher: Any, names: tuple[str, ...]) -> list[tuple[str, Any, Any]]:
    """Settings of two runs' models that differ: name, the student's, the teacher's."""
    pairs = [(f"model.{n}", getattr(student.model, n), getattr(teacher.model, n)) for n in names]
    return [each for each in pairs if each[1] != each[2]]
