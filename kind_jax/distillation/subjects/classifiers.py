"""Vision transformers as subjects of module-wise distillation."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from kind_jax import losses
from kind_jax.classifying import cost
from kind_jax.classifying import network as networks
from kind_jax.classifying.config import ClassifyRun
from kind_jax.classifying.task import ClassifyTask
from kind_jax.distillation.subjects import Seen, of_model
from kind_jax.nn.gate import Gate
from kind_jax.partition import Collections


class Classifiers:
    """Vision transformers: predictions are logits [B, K]."""

    def seen(self, task: ClassifyTask, collections: Collections, samples: Any) -> Seen:
        found, loss = task.outputs(collections, samples, see=True)
        return Seen(loss, found.logits, found.states, {})

    def gate(self, network: Any, samples: Any) -> Gate:
        return networks.gate_of(network, networks.superclass_of(network, samples.labels))

    def difference(self, mine: Seen, theirs: Seen, samples: Any, temperature: float) -> Float[Array, ""]:
        del samples
        wanted = jnp.where(jnp.isfinite(mine.predictions), theirs.predictions, -jnp.inf)
        return losses.kd(mine.predictions, wanted, temperature)

    def contradictions(self, student: ClassifyRun, teacher: ClassifyRun) -> list[tuple[str, Any, Any]]:
        return of_model(student, teacher, ("network", "size", "channels", "num_classes"))

    def forward(self, network: Any, batch: int) -> float:
        return batch * cost.forward(network)

    def look(self, task: Any, *how: Any) -> dict[str, float]:
        return task.look(*how)
