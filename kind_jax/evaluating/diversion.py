"""Where the class knowledge sits: samples with the label embedding and the tailors switched independently.

The class can reach the network in two ways, so a class gate alone does not prove that the tailors carry the class: the
embedding may do all the work. Here each is given the right class, a wrong one, or none.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from kind_jax import model, partition, sampling
from kind_jax.config import Config
from kind_jax.evaluating.intervals import wilson
from kind_jax.evaluating.judge import Judge
from kind_jax.evaluating.quality import Measured, measured
from kind_jax.nn.gate import Gate, learngenes_only

CONDITIONS = {
    "complete": "right embedding, right tailors",
    "no_tailors": "right embedding, no tailors",
    "tailors_only": "null embedding, right tailors",
    "wrong_tailors": "right embedding, a wrong class's tailors",
    "learngenes_only": "null embedding, no tailors",
}


def another_class(config: Config, labels: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """For each label a class of another group, every one equally often where labels repeat."""
    group = np.array(config.model.group_of_class)
    turn = np.zeros(len(group), np.int64)
    wrong = np.empty_like(labels)
    for i, label in enumerate(labels):
        others = np.flatnonzero(group != group[label])
        others = np.roll(others, -int(np.searchsorted(others, label)))  # begin with the next class
        wrong[i] = others[turn[label] % len(others)]
        turn[label] += 1
    return wrong


def conditions(config: Config) -> dict[str, str]:
    """The conditions that make sense for a model: one that has no embedding is not shown with and without it."""
    names = list(CONDITIONS) if config.model.label_embedding else ["complete", "wrong_tailors", "learngenes_only"]
    if config.model.num_groups == 1:
        names.remove("wrong_tailors")
    what = {name: CONDITIONS[name] for name in names}
    return what if config.model.label_embedding else {n: text.split(", ")[1] for n, text in what.items()}


def inputs(config: Config, condition: str, labels: Int[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], Gate]:
    """Embedding labels and gate of a condition, for samples that should show ``labels``."""
    null = np.full_like(labels, config.model.num_classes)
    tailored = another_class(config, labels) if condition == "wrong_tailors" else labels
    off = condition in ("no_tailors", "learngenes_only")
    rows = model.class_gate(config.model)(jnp.asarray(tailored), jnp.zeros(len(labels), bool))
    embedded = null if condition in ("tailors_only", "learngenes_only") else labels
    return embedded, learngenes_only() if off else rows


def draw(
    config: Config, collections: partition.Collections, condition: str, labels: Int[np.ndarray, " N"], *, seed: int
) -> Float[np.ndarray, "N H W C"]:
    """Samples under one condition, without guidance whatever the config says."""
    embedded, gate = inputs(config, condition, labels)
    plain = dataclasses.replace(config.sampler, guidance=1.0)
    return sampling.draw(config, collections, embedded, gate, null_gate=learngenes_only(), seed=seed, sampler=plain)


def diversion(
    config: Config,
    collections: partition.Collections,
    judge: Judge,
    reference: Float[np.ndarray, "M H W C"],
    *,
    count: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Class accuracy and Fréchet distance of ``count`` unguided samples under each of :func:`conditions`.

    ``wrong_tailors`` also says how often the judge sees a class of the tailors' group instead (``follows_tailors``).
    """
    found = measured_diversion(config, collections, judge, reference, count=count, seed=seed)
    return {condition: result.values for condition, result in found.items()}


def measured_diversion(
    config: Config,
    collections: partition.Collections,
    judge: Judge,
    reference: Float[np.ndarray, "M H W C"],
    *,
    count: int,
    seed: int,
) -> dict[str, Measured]:
    """:func:`diversion` with the interval of each figure."""
    group = np.array(config.model.group_of_class)
    labels = np.arange(count, dtype=np.int32) % config.model.num_classes
    results = {}
    for condition in conditions(config):
        images = draw(config, collections, condition, labels, seed=seed)
        results[condition] = measured(judge, images, labels, reference)
        if condition == "wrong_tailors":
            wrong = another_class(config, labels)
            follows = int(np.sum(group[judge.predict(images)] == group[wrong]))
            results[condition].values["follows_tailors"] = follows / count
            results[condition].intervals["follows_tailors"] = wilson(follows, count)
    return results
