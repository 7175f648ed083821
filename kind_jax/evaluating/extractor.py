"""What turns images into the features that metrics are computed from. N: images, H, W, C: their shape, K: classes.

A Fréchet distance belongs to the feature space that it was measured in, so each extractor names its own metrics; only
Inception's are called FID and sFID.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float

from kind_jax.evaluating.judge import Judge
from kind_jax.nn.cnn import FEATURES


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """What an extractor sees in N images.

    Attributes:
      pool: features of whole images.
      spatial: features that keep where things are, flattened; None where the extractor has none.
      probabilities: of classes; None where the extractor knows none.
    """

    pool: Float[np.ndarray, "N D"]
    spatial: Float[np.ndarray, "N S"] | None = None
    probabilities: Float[np.ndarray, "N K"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricNames:
    """What the metrics of one feature space are called."""

    frechet: str
    spatial: str
    score: str

    @classmethod
    def of(cls, name: str) -> MetricNames:
        """Names that cannot be mistaken for those of Inception."""
        return cls(frechet=f"{name}_frechet", spatial=f"{name}_spatial_frechet", score=f"{name}_score")


@runtime_checkable
class Extractor(Protocol):
    """A feature space.

    Attributes:
      name: short, without spaces.
      fingerprint: SHA-256 of what its features follow from: a file of weights, or a training.
      names: what its metrics are called.
      dims: the largest number of features that a Gaussian is fitted to; it takes more than so many images.
      knows_classes: whether its probabilities are of the model's own classes.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def names(self) -> MetricNames: ...

    @property
    def dims(self) -> int: ...

    @property
    def knows_classes(self) -> bool: ...

    def __call__(self, images: Float[np.ndarray, "N H W C"]) -> Features:
        """The features of images in [-1, 1], in one pass."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class JudgeExtractor:
    """The offline judge: its features compare models on one data set, and are comparable with nothing else."""

    judge: Judge
    name: str = "judge"
    names: MetricNames = MetricNames.of("judge")
    dims: int = FEATURES
    knows_classes: bool = True

    @property
    def fingerprint(self) -> str:
        return self.judge.fingerprint

    def __call__(self, images: Float[np.ndarray, "N H W C"]) -> Features:
        """Features and class probabilities.

        Raises:
          UserError: images of another shape than the judge was trained on.
        """
        features, logits = self.judge.look(images)
        return Features(pool=features, probabilities=np.asarray(jax.nn.softmax(logits)))
