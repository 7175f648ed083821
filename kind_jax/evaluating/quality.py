"""How good class-conditional samples are, in the eyes of a judge. N, M: images, L = N: labels, H, W, C: their shape."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, Int

from kind_jax.errors import UserError
from kind_jax.evaluating.frechet import frechet_distance, gaussian_fit
from kind_jax.evaluating.intervals import Interval, frechet_effects, of_mean, wilson
from kind_jax.evaluating.judge import Judge
from kind_jax.evaluating.moments import Gaussian


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What :func:`quality` returns, with the 95 % interval of each figure (:mod:`kind_jax.evaluating.intervals`)."""

    values: dict[str, float]
    intervals: dict[str, Interval]


def quality(
    judge: Judge,
    samples: Float[np.ndarray | jax.Array, "N H W C"],
    labels: Int[np.ndarray | jax.Array, " L"],
    reference_images: Float[np.ndarray | jax.Array, "M H W C"],
) -> dict[str, float]:
    """Judge samples in [-1, 1] that were asked to show ``labels``.

    Returns:
      ``class_accuracy``: fraction of samples in which the judge sees the class that was asked for; its own limits are
        in ``judge.held_out``.
      ``frechet``: Fréchet distance between the judge's features of the samples and of the reference images. It is
        not FID, and it grows as N or M shrinks: compare only figures of equal N, M and judge.

    Raises:
      UserError: labels that do not match the samples, images that the judge refuses, or fewer than 33 of either.
    """
    return measured(judge, samples, labels, reference_images).values


def measured(
    judge: Judge,
    samples: Float[np.ndarray | jax.Array, "N H W C"],
    labels: Int[np.ndarray | jax.Array, " L"],
    reference_images: Float[np.ndarray | jax.Array, "M H W C"],
) -> Measured:
    """:func:`quality` with intervals; the same errors."""
    if len(labels) != len(samples):
        raise UserError(f"quality got {len(labels)} labels for {len(samples)} samples, but each sample needs one.")
    features, logits = judge.look(samples)
    drawn, reference = (_gaussian(rows) for rows in (features, judge.features(reference_images)))
    right = int(np.sum(logits.argmax(axis=-1) == np.asarray(labels)))
    distance = frechet_distance(drawn.mean, drawn.cov, reference.mean, reference.cov)
    effects = frechet_effects(features, drawn, reference)
    return Measured(
        values={"class_accuracy": right / len(labels), "frechet": distance},
        intervals={"class_accuracy": wilson(right, len(labels)), "frechet": of_mean(distance, effects, len(labels))},
    )


def _gaussian(features: np.ndarray) -> Gaussian:
    mean, cov = gaussian_fit(features)
    return Gaussian(mean=mean, cov=cov)


def train_vs_test(
    judge: Judge,
    train_images: Float[np.ndarray | jax.Array, "M H W C"],
    test_images: Float[np.ndarray | jax.Array, "N H W C"],
    test_labels: Int[np.ndarray | jax.Array, " L"],
) -> dict[str, float]:
    """The baseline of :func:`quality`: what real images that the judge never saw get, as if they were samples.

    No generator should be expected to do better, and a smaller distance at equal N hints at memorised images.
    """
    return quality(judge, test_images, test_labels, train_images)
