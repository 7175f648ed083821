"""How good models of several tasks are, joined: the protocols of ZipIt! N: images, K: classes of all tasks.

*Joint* is the accuracy among the classes of all tasks; *per task* among those of an image's own task, averaged over
tasks. A model with several heads answers with the class whose own head is surest of it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from kind_jax.classifying.outputs import outputs
from kind_jax.config.networks import ZippedConfig
from kind_jax.data.sets import Dataset
from kind_jax.errors import UserError
from kind_jax.merging.zipping import Model


@dataclasses.dataclass(frozen=True)
class Scores:
    """Attributes:
    joint: accuracy among all classes.
    tasks: accuracy of each task among its own classes; None of one that a model has no head for.
    """

    joint: float
    tasks: tuple[float | None, ...]

    @property
    def per_task(self) -> float:
        """The mean over tasks; one without a head counts as 0."""
        return float(np.mean([0.0 if each is None else each for each in self.tasks]))


def logits_of(model: Model, tasks: Sequence[Dataset]) -> list[Float[np.ndarray, "N K"]]:
    """Of all images of each task, in their order."""
    return [outputs(model.config, model.collections, dataset)[1] for dataset in tasks]


def alone(model: Model, task: int, tasks: Sequence[Dataset]) -> Scores:
    """One model, which knows the classes of its own task and no others."""
    (found,) = logits_of(model, [tasks[task]])
    own = _accuracy(found, _labels(tasks[task]))
    counts = [len(each.source) for each in tasks]
    return Scores(own * counts[task] / sum(counts), tuple(own if i == task else None for i in range(len(tasks))))


def together(model: Model, tasks: Sequence[Dataset], classes: Sequence[int]) -> Scores:
    """A model whose outputs are the classes of all tasks, one task's behind the other's.

    Args:
      classes: how many classes each task has.
    """
    return _scores(logits_of(model, tasks), tasks, classes, heads=isinstance(model.config, ZippedConfig))


def ensemble(models: Sequence[Model], tasks: Sequence[Dataset]) -> Scores:
    """All models side by side, each with its own log-probabilities: what merging nothing gives."""
    found = []
    for dataset in tasks:
        each = [outputs(model.config, model.collections, dataset)[1] for model in models]
        found.append(np.concatenate([_log_softmax(logits) for logits in each], axis=1))
    return _scores(found, tasks, [model.config.num_classes for model in models], heads=True)


def _scores(
    logits: Sequence[Float[np.ndarray, "N K"]], tasks: Sequence[Dataset], classes: Sequence[int], *, heads: bool
) -> Scores:
    if logits[0].shape[1] != sum(classes):
        raise UserError(f"the model has {logits[0].shape[1]} classes, but the tasks have {sum(classes)}.")
    ends = np.cumsum([0, *classes])
    right, count, own = 0.0, 0, []
    for i, (found, dataset) in enumerate(zip(logits, tasks, strict=True)):
        labels = _labels(dataset)
        if not heads:  # softmax within each split, compared across them
            parts = [_log_softmax(found[:, a:b]) for a, b in itertools.pairwise(ends)]
            found = np.concatenate(parts, axis=1)
        right += float((found.argmax(axis=1) == labels + ends[i]).sum())
        count += len(labels)
        own.append(_accuracy(found[:, ends[i] : ends[i + 1]], labels))
    return Scores(right / count, tuple(own))


def _labels(dataset: Dataset) -> Int[np.ndarray, " N"]:
    return np.asarray(dataset.source.gather(np.arange(len(dataset.source)))["label"])


def _accuracy(logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def _log_softmax(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    high = logits - logits.max(axis=1, keepdims=True)
    return high - np.log(np.exp(high).sum(axis=1, keepdims=True))
