"""The singular value decomposition of one weight: all of it, or only its leading components.

Singular vectors are orthonormal also where the weight has no such direction (s = 0): a component begins to learn only
if two of u, s and v are not zero.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from kind_jax.deploy import components
from kind_jax.nn.init import Components

Method = Literal["exact", "randomised"]

# Sketching pays for large weights of which few components are wanted: for 1152 x 3456 and up to this share of the rank,
# it is three to six times faster than the exact way, and the components have 0.1 % less energy together.
LEAST_RANK = 512
MOST_SHARE = 1 / 8

_OVERSAMPLES = 32  # at least; half as many as are wanted
_ITERATIONS = 7


def method_of(shape: tuple[int, int], wanted: int, randomised: bool | None) -> Method:
    """How ``wanted`` components of such a weight are found; ``randomised`` other than None decides by itself."""
    if randomised is None:
        randomised = min(shape) >= LEAST_RANK and wanted <= MOST_SHARE * min(shape)
    return "randomised" if randomised else "exact"


def factorise(kernel: Float[np.ndarray, "d_in d_out"], wanted: int, *, method: Method, seed: int) -> Components:
    """The leading components in float32, sorted by s; the same for the same kernel and seed.

    ``exact`` takes the eigenvectors of the smaller Gram matrix in float64, which is exact to float32's rounding.
    ``randomised`` is scikit-learn's sketch (Halko, Martinsson & Tropp 2011) with seven power iterations.

    Args:
      kernel: finite numbers.
      wanted: how many, at most min(d_in, d_out).
      seed: of the sketch, below 2³².
    """
    found = _sketched(kernel, wanted, seed) if method == "randomised" else _exact(kernel)
    u, s, v = found.u[:, :wanted], found.s[:wanted], found.v[:wanted]
    # The signs of a pair are free; fixed ones make results of different machines alike.
    largest = np.take_along_axis(u, np.argmax(np.abs(u), axis=0)[None, :], 0)[0]
    sign = np.where(largest < 0, -1.0, 1.0)
    return Components(*(np.ascontiguousarray(a, np.float32) for a in (u * sign, s, v * sign[:, None])))


def _exact(kernel: Float[np.ndarray, "d_in d_out"]) -> Components:
    if kernel.shape[0] > kernel.shape[1]:
        flipped = _exact(kernel.T)
        return Components(flipped.v.T, flipped.s, flipped.u.T)
    u, s, v = components.decompose(kernel)
    # The rows s v are orthogonal up to rounding, but noise or 0 where s is. Q has orthonormal columns in any case.
    q, r = np.linalg.qr((s[:, None] * v).T)
    signed = np.diagonal(r)
    return Components(np.where(signed < 0, -u, u), np.abs(signed), q.T)


def _sketched(kernel: Float[np.ndarray, "d_in d_out"], wanted: int, seed: int) -> Components:
    from sklearn.utils.extmath import randomized_svd

    largest = float(np.max(np.abs(kernel), initial=0.0)) or 1.0  # powers of huge weights would overflow
    more = max(_OVERSAMPLES, wanted // 2)
    settings: dict[str, Any] = {"n_oversamples": more, "n_iter": _ITERATIONS, "random_state": seed}
    u, s, v = randomized_svd(kernel / np.float32(largest), wanted, **settings)
    return Components(u, s.astype(np.float64) * largest, v)
