"""95 % intervals of metrics: what another draw of as many images would give, judge and reference being the same.

Of a share of images (class accuracy, precision), Wilson's (1927). Of a smooth function of a mean over images (Fréchet
distance, score), the delta method: each image's first-order effect on the figure is known in closed form, and the
figure's standard error is that of their mean (the infinitesimal jackknife; Efron & Tibshirani 1993, ch. 21). Of recall,
which is neither, the jackknife that leaves out a tenth of the images at a time. An interval says nothing about bias: a
Fréchet distance of few images is too large by about as much in every draw. N: images, D: features, K: classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float64

from kind_jax.evaluating.frechet import square_root
from kind_jax.evaluating.moments import Gaussian

Interval = tuple[float, float]

METHOD = (
    "95 %, over draws of as many images with the same judge and reference: Wilson for class_accuracy and precision, "
    "jackknife over tenths for recall, delta method for distances and scores; bias is not included"
)
_Z = 1.959963984540054  # of the normal distribution, 97.5 %
_T = 2.2621571628540993  # of Student's with 9 degrees of freedom, 97.5 %
_GROUPS = 10
_ROWS = 4000  # images that the jackknife takes apart


def wilson(right: int, count: int) -> Interval:
    """Of a share ``right / count`` of independent images.

    Wilson 1927: sound for few images and near 0 and 1, where the usual interval has no width.
    """
    share, z2 = right / count, _Z * _Z
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return (0.0 if right == 0 else low), (1.0 if right == count else high)


def around(value: float, error: float, *, lowest: float) -> Interval:
    """Of a figure that is at least ``lowest``, given its standard error."""
    return max(value - _Z * error, lowest), value + _Z * error


def of_mean(value: float, effects: Float64[np.ndarray, " N"], count: int) -> Interval:
    """Around ``value``, to which each of ``count`` images adds its effect / ``count``; effects of some may suffice."""
    return around(value, float(effects.std(ddof=1)) / math.sqrt(count), lowest=0.0)


def frechet_effects(rows: Float[np.ndarray, "N D"], drawn: Gaussian, reference: Gaussian) -> Float64[np.ndarray, " N"]:
    """First-order effect of each image on the squared Fréchet distance, up to a constant.

    The derivative of |μ - ν|² + tr(A + B - 2 (A^½ B A^½)^½) is 2 (μ - ν) in μ and I - T in A, where
    T = B^½ (B^½ A B^½)^-½ B^½ carries N(μ, A) to N(ν, B) (Olkin & Pukelsheim 1982).
    """
    root = square_root(reference.cov)
    values, vectors = np.linalg.eigh(root @ drawn.cov @ root)
    floor = max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    inverse = np.where(values > floor, 1 / np.sqrt(np.where(values > floor, values, 1.0)), 0.0)
    side = root @ vectors
    transport = (side * inverse[None, :]) @ side.T
    centred = rows.astype(np.float64) - drawn.mean[None, :]
    slope = np.eye(len(root)) - transport
    return 2 * centred @ (drawn.mean - reference.mean) + np.einsum("nd,nd->n", centred @ slope, centred)


def jackknife(value: float, statistic: Callable[[np.ndarray], float], rows: Float[np.ndarray, "N D"]) -> Interval:
    """Around ``value``, a share that ``statistic`` computes of rows, from its figures without a tenth of them.

    The delete-a-group jackknife. More than 4000 rows are represented by so many, whose variance is scaled.
    """
    if len(rows) < 2 * _GROUPS:
        return 0.0, 1.0  # too few to tell
    order = np.random.default_rng(0).permutation(len(rows))[:_ROWS]
    groups = np.array_split(order, _GROUPS)
    left = np.array([statistic(rows[np.sort(np.concatenate(groups[:i] + groups[i + 1 :]))]) for i in range(_GROUPS)])
    variance = (_GROUPS - 1) / _GROUPS * np.square(left - left.mean()).sum() * len(order) / len(rows)
    half = _T * math.sqrt(float(variance))
    return max(value - half, 0.0), min(value + half, 1.0)
