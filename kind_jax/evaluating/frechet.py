"""Fréchet distance between Gaussians fitted to features. N: samples, D: feature dimensions; all in float64."""

import jax
import numpy as np
from jaxtyping import Float, Float64

from kind_jax.errors import UserError


def gaussian_fit(
    features: Float[np.ndarray | jax.Array, "N D"],
) -> tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, "D D"]]:
    """Mean and unbiased covariance of the rows.

    Raises:
      UserError: fewer than D + 1 samples, whose covariance is singular whatever the distribution; or a feature that
        is not finite.
    """
    rows = np.asarray(features, np.float64)
    count, dims = rows.shape
    if count < dims + 1:
        raise UserError(
            f"A Gaussian was fitted to {count} samples, but {dims} features need at least {dims + 1} samples."
        )
    if not np.isfinite(rows).all():
        raise UserError("A Gaussian was fitted to features that are not all finite, but every feature must be finite.")
    mean = rows.mean(axis=0)
    centred = rows - mean[None, :]
    return mean, centred.T @ centred / (count - 1)


def square_root(covariance: Float64[np.ndarray, "D D"]) -> Float64[np.ndarray, "D D"]:
    """The symmetric root of a covariance, which may be singular."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    # Rounding leaves eigenvalues of about ±eps where a zero belongs; its root, 1e-8, would be no longer negligible.
    floor = max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    roots = np.sqrt(np.where(values > floor, values, 0.0))
    return (vectors * roots[None, :]) @ vectors.T


def frechet_distance(
    mean_a: Float64[np.ndarray, " D"],
    cov_a: Float64[np.ndarray, "D D"],
    mean_b: Float64[np.ndarray, " D"],
    cov_b: Float64[np.ndarray, "D D"],
) -> float:
    """|μ_a - μ_b|² + tr(A + B - 2 (A^½ B A^½)^½), the squared Fréchet distance (Dowson & Landau 1982).

    The trace of the last root is the sum of the singular values of A^½ B^½: those are the roots of the eigenvalues of
    A^½ B A^½, found without squaring the condition number. Singular covariances are fine.
    """
    root_trace = np.linalg.svd(square_root(cov_a) @ square_root(cov_b), compute_uv=False).sum()
    offset = mean_a - mean_b
    distance = offset @ offset + np.trace(cov_a) + np.trace(cov_b) - 2.0 * root_trace
    return max(float(distance), 0.0)  # rounding may end a hair below zero
