"""Mean and covariance of a stream of features, so that 50 000 feature vectors need not be held. D: dimensions."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Float64

from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Gaussian:
    """A fit; ``cov`` is the unbiased covariance."""

    mean: Float64[np.ndarray, " D"]
    cov: Float64[np.ndarray, "D D"]


class Moments:
    """Running mean and scatter matrix in float64, merged batch by batch (Chan, Golub & LeVeque 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: np.ndarray | None = None
        self._scatter: np.ndarray | None = None

    def add(self, features: Float[np.ndarray, "N D"]) -> None:
        """Count N more rows.

        Raises:
          UserError: a feature is not finite.
        """
        rows = np.asarray(features, np.float64)
        if len(rows) == 0:
            return
        if not np.isfinite(rows).all():
            raise UserError("features that a Gaussian is fitted to are not all finite.")
        mean = rows.mean(axis=0)
        centred = rows - mean[None, :]
        scatter = centred.T @ centred
        if self._mean is None or self._scatter is None:
            self.count, self._mean, self._scatter = len(rows), mean, scatter
            return
        total = self.count + len(rows)
        offset = mean - self._mean
        self._scatter = self._scatter + scatter + np.outer(offset, offset) * (self.count * len(rows) / total)
        self._mean = self._mean + offset * (len(rows) / total)
        self.count = total

    def fit(self, what: str) -> Gaussian:
        """The Gaussian of all rows so far; ``what`` names them in the error.

        Raises:
          UserError: fewer than D + 1 rows, whose covariance is singular whatever the distribution.
        """
        dims = 0 if self._mean is None else len(self._mean)
        if self._mean is None or self._scatter is None or self.count < dims + 1:
            raise UserError(f"{what} are {self.count}, but {dims} features need at least {dims + 1} images.")
        return Gaussian(mean=self._mean, cov=self._scatter / (self.count - 1))
