"""Arithmetic on rank-one components, in float64 and without forming the matrices that they make up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from kind_jax.nn.init import Components


def energies(parts: Components) -> Float[np.ndarray, "*groups n"]:
    """(|s| |u| |v|)² of every component."""
    u, s, v = (np.asarray(a, np.float64) for a in parts)
    return s**2 * np.sum(u**2, axis=-2) * np.sum(v**2, axis=-1)


def product(parts: Components) -> Float[np.ndarray, "d_in d_out"]:
    """U diag(s) V in float64."""
    u, s, v = (np.asarray(a, np.float64) for a in parts)
    return (u * s) @ v


def norm2(parts: Components) -> float:
    """Squared Frobenius norm of U diag(s) V; components need not be orthogonal."""
    u, s, v = (np.asarray(a, np.float64) for a in parts)
    u = u * s
    return max(float(np.sum((u.T @ u) * (v @ v.T))), 0.0)


def chain(first: Components, second: Components) -> Components:
    """The components of a sum."""
    u, s, v = (
        np.concatenate(pair, axis) for pair, axis in zip(zip(first, second, strict=True), (1, 0, 0), strict=True)
    )
    return Components(u, s, v)


def row(parts: Components, group: int) -> Components:
    """The components of one group."""
    return Components(*(a[group] for a in parts))


def take(parts: Components, index: Int[np.ndarray, " k"] | Sequence[int]) -> Components:
    """Some components, in this order."""
    return Components(parts.u[:, index], parts.s[index], parts.v[index])


def gather(parts: Components, index: Int[np.ndarray, "groups k"]) -> Components:
    """Some components of each group."""
    return Components(
        np.take_along_axis(parts.u, index[:, None, :], 2),
        np.take_along_axis(parts.s, index, 1),
        np.take_along_axis(parts.v, index[:, :, None], 1),
    )


def refactor(parts: Components) -> Components:
    """The singular value decomposition of U diag(s) V, from its thin factors: min(n, d_in, d_out) components."""
    u, s, v = (np.asarray(a, np.float64) for a in parts)
    basis, weights = np.linalg.qr(u * s)
    inner = decompose(weights @ v)
    return Components(basis @ inner.u, inner.s, inner.v)


def decompose(kernel: Float[np.ndarray, "d_in d_out"]) -> Components:
    """The singular value decomposition of a matrix, by the eigenvectors of its smaller Gram matrix in float64.

    Several times faster than LAPACK's SVD. Singular values below 1e-8 of the largest are noise, as any are in float32
    weights, but the product is exact for any orthogonal u: u (uᵀ W) = W.
    """
    w = np.asarray(kernel, np.float64)
    if w.shape[0] > w.shape[1]:
        flipped = decompose(w.T)
        return Components(flipped.v.T, flipped.s, flipped.u.T)
    u = np.linalg.eigh(w @ w.T)[1][:, ::-1]  # ascending
    rows = u.T @ w
    s = np.linalg.norm(rows, axis=1)
    return Components(u, s, rows / np.where(s > 0, s, 1.0)[:, None])
