"""Precision and recall of a generator through k-nearest-neighbour manifolds (Kynkäänniemi et al. 2019).

A set of features stands for a manifold: the balls around them that just reach their k-th neighbour. Precision is the
share of samples that lie in the manifold of the reference, recall the share of the reference in that of the samples.
Distances are computed in blocks, in float32 (ADM's evaluator uses float16 where it does not overflow, which moves its
figures in the third digit). N, M: images, D: features.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from kind_jax.errors import UserError

NEIGHBOURS = 3
BLOCK = 4096  # 64 MiB of distances at a time


@jax.jit
def _squared(a: Float[Array, "A D"], b: Float[Array, "B D"]) -> Float[Array, "A B"]:
    product = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.square(a).sum(axis=1)[:, None] + jnp.square(b).sum(axis=1)[None, :]
    return jnp.maximum(norms - 2.0 * product, 0.0)


@functools.partial(jax.jit, static_argnames="k")
def _smallest(distances: Float[Array, "A B"], k: int) -> Float[Array, "A k"]:
    return -jax.lax.top_k(-distances, k)[0]


@jax.jit
def _inside(distances: Float[Array, "A B"], radii: Float[Array, " B"]) -> Bool[Array, " A"]:
    return (distances <= radii[None, :]).any(axis=1)


def _blocks(count: int, block: int) -> Iterator[slice]:
    return (slice(start, min(start + block, count)) for start in range(0, count, block))


def _radii(features: Array, k: int, block: int) -> Array:
    """Squared distance of each row to its k-th neighbour; the row itself is the zeroth."""
    parts = []
    for rows in _blocks(len(features), block):
        nearest = None
        for columns in _blocks(len(features), block):
            distances = _squared(features[rows], features[columns])
            nearest = distances if nearest is None else jnp.concatenate([nearest, distances], axis=1)
            nearest = _smallest(nearest, min(k + 1, nearest.shape[1]))
        assert nearest is not None
        parts.append(nearest[:, k])
    return jnp.concatenate(parts)


def _covered(points: Array, centres: Array, k: int, block: int) -> Bool[np.ndarray, " A"]:
    """Which points lie in the manifold of the centres."""
    radii, found = _radii(centres, k, block), np.zeros(len(points), bool)
    for rows in _blocks(len(points), block):
        for columns in _blocks(len(centres), block):
            found[rows] |= np.asarray(_inside(_squared(points[rows], centres[columns]), radii[columns]))
    return found


def _centred(reference: np.ndarray, samples: np.ndarray, k: int) -> tuple[Array, Array]:
    for what, features in (("reference", reference), ("samples", samples)):
        if len(features) <= k:
            raise UserError(f"precision and recall got {len(features)} images as {what}, but need at least {k + 1}.")
    centre = np.asarray(reference, np.float64).mean(axis=0)  # distances do not depend on it, but their rounding does
    real, drawn = (jnp.asarray((a - centre[None, :]).astype(np.float32)) for a in (reference, samples))
    return real, drawn


def precision_recall(
    reference: Float[np.ndarray, "M D"],
    samples: Float[np.ndarray, "N D"],
    *,
    k: int = NEIGHBOURS,
    block: int = BLOCK,
) -> tuple[float, float]:
    """Precision and recall of ``samples``.

    Raises:
      UserError: k images or fewer on either side.
    """
    real, drawn = _centred(reference, samples, k)
    return float(_covered(drawn, real, k, block).mean()), float(_covered(real, drawn, k, block).mean())


def recall(
    reference: Float[np.ndarray, "M D"], samples: Float[np.ndarray, "N D"], *, k: int = NEIGHBOURS, block: int = BLOCK
) -> float:
    """Recall alone, which spares the neighbours within the reference.

    Raises:
      UserError: k images or fewer on either side.
    """
    real, drawn = _centred(reference, samples, k)
    return float(_covered(real, drawn, k, block).mean())
