"""Where the class knowledge sits: samples with the label embedding and the tailors switched independently.

The class can reach the network in two ways, so a class gate alone does not prove that the tailors carry the class: the
embedding may do all the work. Here each is given the right class, a wrong one, or none.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from kind_jax import model, partition, sampling
from kind_jax.config import Config
from kind_jax.evaluate.judge import Judge
from kind_jax.evaluate.quality import quality
from kind_jax.nn.gate import Gate, learngenes_only

CONDITIONS = {
    "complete": "right embedding, right tailors",
    "no_tailors": "right embedding, no tailors",
    "tailors_only": "null embedding, right tailors",
    "wrong_tailors": "right embedding, a wrong class's tailors",
    "learngenes_only": "null embedding, no tailors",
}


def another_class(labels: Int[np.ndarray, " N"], num_classes: int) -> Int[np.ndarray, " N"]:
    """A wrong class for each label, every other class equally often where labels repeat."""
    turn = np.zeros(num_classes, np.int64)
    wrong = np.empty_like(labels)
    for i, label in enumerate(labels):
        wrong[i] = (label + 1 + turn[label] % (num_classes - 1)) % num_classes
        turn[label] += 1
    return wrong


def inputs(config: Config, condition: str, labels: Int[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], Gate]:
    """Embedding labels and gate of a condition, for samples that should show ``labels``."""
    null = np.full_like(labels, config.model.num_classes)
    tailored = another_class(labels, config.model.num_classes) if condition == "wrong_tailors" else labels
    off = condition in ("no_tailors", "learngenes_only")
    rows = model.class_gate(config.model)(jnp.asarray(tailored), jnp.zeros(len(labels), bool))
    embedded = null if condition in ("tailors_only", "learngenes_only") else labels
    return embedded, learngenes_only() if off else rows


def diversion(
    config: Config,
    collections: partition.Collections,
    judge: Judge,
    reference: Float[np.ndarray, "M H W C"],
    *,
    count: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Class accuracy and Fréchet distance of ``count`` unguided samples under each of :data:`CONDITIONS`.

    ``wrong_tailors`` also says how often the judge sees the class of the tailors instead (``follows_tailors``).
    """
    labels = np.arange(count, dtype=np.int32) % config.model.num_classes
    results = {}
    for condition in CONDITIONS:
        embedded, gate = inputs(config, condition, labels)
        images = sampling.draw(config, collections, embedded, gate, null_gate=learngenes_only(), seed=seed)
        results[condition] = quality(judge, images, labels, reference)
        if condition == "wrong_tailors":
            wrong = another_class(labels, config.model.num_classes)
            results[condition]["follows_tailors"] = float(np.mean(judge.predict(images) == wrong))
    return results
