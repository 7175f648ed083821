"""A data set with its judge, for whatever measures samples: training images, and held-out ones to compare with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from kind_jax.config import DataConfig
from kind_jax.errors import NoSplitError
from kind_jax.evaluating.judge import BOUND, Judge, hold_out, train_judge
from kind_jax.evaluating.reference import open_real

# Held in memory; more say no more to a small classifier.
_IMAGES, _TRIED, _BYTES = 100_000, 10_000, 1 << 31


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Images in [-1, 1] with labels as the model numbers them. M: images, N: held-out images.

    Attributes:
      images: that the judge was trained on.
      held_out: that it was not trained on: the test split, or a share of the training images where there is none.
      split: whether ``held_out`` is a test split, which the model was not trained on either.
    """

    judge: Judge
    images: Float32[np.ndarray, "M H W C"]
    held_out: Float32[np.ndarray, "N H W C"]
    held_out_labels: Int32[np.ndarray, " N"]
    split: bool


def judge_data(
    config: DataConfig,
    class_names: Sequence[str],
    shape: tuple[int, int, int],
    *,
    cache: Path,
    steps: int | None = None,
    bound: float = BOUND,
    path: str | None = None,
) -> Judged:
    """Train the judge of a data set, all classes that the model has too, or read it from ``cache``.

    Prints how far the training is.

    Args:
      class_names: of the model.
      shape: (H, W, C) of its images.
      steps, bound: see :func:`kind_jax.evaluating.judge.train_judge`.
      path: what was given in place of the data set of the model's config; None if nothing was.

    Raises:
      UserError: the data set cannot be opened or does not fit, ``cache`` is no judge, or the judge is below the bound.
    """
    train = open_real(config, "train", class_names, None, shape, path)
    images, labels = train.arrays(_IMAGES, _BYTES)
    try:
        test = open_real(config, "test", class_names, None, shape, path).arrays(_TRIED, _BYTES)
    except NoSplitError:
        test = None
    judge = train_judge(
        images, labels, len(class_names), seed=0, steps=steps, cache=cache, held_out=test, bound=bound,
        flip=train.dataset.flip, show=True,
    )  # fmt: skip
    split = test is not None
    if test is None:
        chosen = hold_out(labels)
        images, test = images[~chosen], (images[chosen], labels[chosen])
    return Judged(judge=judge, images=images, held_out=test[0], held_out_labels=test[1], split=split)
