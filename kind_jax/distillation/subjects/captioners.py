"""CoCa as a subject of module-wise distillation."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from kind_jax import losses
from kind_jax.captioning import network as networks
from kind_jax.captioning.config import CaptionRun
from kind_jax.captioning.losses import words
from kind_jax.captioning.task import CaptionTask
from kind_jax.distillation.subjects import Seen, of_model
from kind_jax.nn.gate import Gate
from kind_jax.partition import Collections


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
        return found + of_model(student, teacher, ("size", "channels", "vocabulary", "context"))

    def forward(self, network: Any, batch: int) -> float:
        return batch * networks.forward(network)

    def look(self, task: Any, *how: Any) -> dict[str, float]:
        return task.look(*how)
