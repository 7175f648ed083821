"""How good class-conditional samples are, in the eyes of a judge. N, M: images, L = N: labels, H, W, C: their shape."""

import jax
import numpy as np
from jaxtyping import Float, Int

from kind_jax.errors import UserError
from kind_jax.evaluate.frechet import frechet_distance, gaussian_fit
from kind_jax.evaluate.judge import Judge


def quality(
    judge: Judge,
    samples: Float[np.ndarray | jax.Array, "N H W C"],
    labels: Int[np.ndarray | jax.Array, " L"],
    reference_images: Float[np.ndarray | jax.Array, "M H W C"],
) -> dict[str, float]:
    """Judge samples in [-1, 1] that were asked to show ``labels``.

    Returns:
      ``class_accuracy``: fraction of samples in which the judge sees the class that was asked for.
      ``frechet``: Fréchet distance between the judge's features of the samples and of the reference images. It is
        not FID, and it grows as N or M shrinks: compare only figures of equal N, M and judge.

    Raises:
      UserError: labels that do not match the samples, images that the judge refuses, or fewer than 33 of either.
    """
    if len(labels) != len(samples):
        raise UserError(f"quality got {len(labels)} labels for {len(samples)} samples, but each sample needs one.")
    sampled, reference = gaussian_fit(judge.features(samples)), gaussian_fit(judge.features(reference_images))
    return {
        "class_accuracy": float(np.mean(judge.predict(samples) == np.asarray(labels))),
        "frechet": frechet_distance(*sampled, *reference),
    }


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
