"""The settings of a run that distils a whole generator into one that was composed of it."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from kind_jax.config import Config, ModelConfig
from kind_jax.config.check import STRICT, gathered, require, require_hash
from kind_jax.config.faster import refuse_faster, unhurried
from kind_jax.config.roles import Role


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Whose predictions are learned, and for which classes.

    Attributes:
      teacher: the whole model: a run or an artifact. Where it lies may change while a student is trained, not its
        weights.
      prediction: weight of the mean squared difference from the teacher's output for the same noisy image.
      data: weight of the denoising loss, in which the teacher takes no part.
      classes: numbers of the classes that the student serves, and is trained on.
      groups: those whose tailors it has, in the order of its bank.
      source, network: SHA-256 of the teacher's weights and its settings; written by the run itself.
    """

    __pydantic_config__ = STRICT

    teacher: str | None = None
    prediction: float = 1.0
    data: float = 0.0
    classes: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    source: str | None = None
    network: ModelConfig | None = None

    roles: ClassVar[dict[Role, str]] = {
        Role.TRAINING: "prediction data source network",
        Role.CLASSES: "classes groups",
        Role.PLACE: "teacher",
    }

    @gathered()
    def __post_init__(self) -> None:
        for name in ("prediction", "data"):
            require(0 <= getattr(self, name) <= 1e6, f"distil.{name}", getattr(self, name), "between 0 and 1e6")
        wanted = "positive where distil.data is 0"
        require(self.prediction + self.data > 0, "distil.prediction", self.prediction, wanted)
        require_hash("distil.source", self.source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorRun(Config):
    """A run that trains a composed diffusion transformer beside the whole one.

    Attributes:
      model: the student.
      distil: the teacher, and what is learned from it.
    """

    __pydantic_config__ = STRICT
    task: ClassVar[str] = "diffusion-distillation"

    distil: GeneratorConfig = GeneratorConfig(classes=(0,), groups=(0,))

    @gathered()
    def __post_init__(self) -> None:
        super().__post_init__()
        known, groups = self.model.num_classes, self.model.group_of_class
        classes, aboard = self.distil.classes, self.distil.groups
        possible = len(classes) == len(set(classes)) > 0 and all(0 <= c < known for c in classes)
        if require(possible, "distil.classes", classes, f"different classes from 0 to {known - 1}"):
            needed = {groups[c] for c in classes}
            possible = len(aboard) == len(set(aboard)) and needed <= set(aboard)
            require(possible, "distil.groups", aboard, f"those of distil.classes, {sorted(needed)}, each once")
        method = self.transfer.method
        require(method == "none", "transfer.method", method, "'none' where a generator is distilled")
        refuse_faster(self, "where a generator is distilled")

    @property
    def aboard(self) -> tuple[int, ...]:
        """The groups whose tailors the model has."""
        return self.distil.groups


def generator_run(config: Config, distil: GeneratorConfig, **changes: Any) -> GeneratorRun:
    """A run that trains the model of ``config`` beside a teacher. How the model was trained faster is left behind."""
    config = unhurried(config)
    fields: dict[str, Any] = {field.name: getattr(config, field.name) for field in dataclasses.fields(Config)}
    return GeneratorRun(**(fields | changes), distil=distil)


def composed_run(config: GeneratorRun) -> Config:
    """The settings of a plain run of the student."""
    return Config(**{field.name: getattr(config, field.name) for field in dataclasses.fields(Config)})
