"""Diffusion transformers as subjects of module-wise distillation."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float

from kind_jax import losses, model
from kind_jax.config import Config
from kind_jax.config.roles import Role, compare
from kind_jax.deploy import cost
from kind_jax.diffusing.task import DiffusionTask
from kind_jax.distillation.subjects import Seen, of_model
from kind_jax.nn.gate import Gate
from kind_jax.partition import Collections
from kind_jax.train.task import Loss


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
        network = of_model(student, teacher, ("size", "channels", "learn_sigma", "num_classes"))
        return [each for each in process if each[1] != each[2]] + times + network

    def forward(self, network: Any, batch: int) -> float:
        return cost.products(network, batch).total

    def look(self, task: Any, *how: Any) -> dict[str, float]:
        return task.show(*how)
