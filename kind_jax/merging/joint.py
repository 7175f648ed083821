"""What several weights have in common: one part of low rank for all of them, and one of low rank for each.

Given W_1 ... W_G of one shape and how often each counts (n_g), find S of rank N_G and T_1 ... T_G of rank N_T with the
least

    sum_g n_g |W_g - S - T_g|²      (Frobenius norm)

With T fixed, the best S is the truncated singular value decomposition of the weighted mean of W_g - T_g; with S fixed,
the best T_g is that of W_g - S (Eckart & Young 1936). Taking the two steps in turn never makes the sum larger, but
where it ends depends on the beginning: from the mean of two weights, T_1 = -T_2 for good, which wastes half of the
components that two groups have, while from one of the two the best there is is found. So several beginnings are tried
for a few sweeps, and the best of them goes on. All of it is NumPy in float64, and deterministic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from kind_jax.deploy import components
from kind_jax.deploy.factorise import factorise, method_of
from kind_jax.nn.init import Components

SWEEPS, TOLERANCE = 40, 1e-3

_TRIAL = 3  # sweeps after which one beginning is chosen; where they differ at all in the end, they do by then
_EXACT = 1e-14  # share of the energy that rounding leaves
_KEPT = 1 << 30  # bytes of weights that are kept rather than made again in every sweep


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Joint:
    """A shared part, and one of each group.

    Attributes:
      shared: S as N_G components, in float32.
      own: T_g as N_T components, the group on the leading axis.
      start: the beginning that led to the best end.
      objective: the sum of squares after each sweep from there, as a share of sum_g n_g |W_g|².
      norms: |W_g| of each group.
      apart: |W_g - S| of each group.
      errors: |W_g - S - T_g| of each group; like the one before it, measured on the float32 components.
    """

    shared: Components
    own: Components
    start: str
    objective: tuple[float, ...]
    norms: Float[np.ndarray, " G"]
    apart: Float[np.ndarray, " G"]
    errors: Float[np.ndarray, " G"]


def joint(
    weights: Sequence[Float[np.ndarray, "d_in d_out"]],
    counts: Int[np.ndarray, " G"],
    *,
    learngenes: int,
    tailors: int,
    starts: Mapping[str, Float[np.ndarray, "d_in d_out"]] | None = None,
    sweeps: int = SWEEPS,
    tolerance: float = TOLERANCE,
) -> Joint:
    """Find the parts.

    Args:
      weights: W_g; each is read once in a sweep, so a sequence may make them as they are asked for.
      counts: n_g, classes of each group.
      learngenes: N_G, at most the rank of a weight.
      tailors: N_T, likewise.
      starts: shared parts to begin from; None takes :func:`common_starts`.
      sweeps: at most so many.
      tolerance: sweeps end when one makes the sum less by no more than this share of it.
    """
    share = np.asarray(counts, np.float64) / np.sum(counts)
    if len(weights) * weights[0].size * 8 <= _KEPT:
        weights = [*_wide(weights)]
    energy = np.array([float(np.sum(np.square(w))) for w in _wide(weights)])
    total = float(share @ energy) or 1.0
    best: tuple[str, list[float], np.ndarray] | None = None
    for name, start in (common_starts(weights, share, learngenes) if starts is None else starts).items():
        objective, found = _descend(
            weights, share, truncated(start, learngenes), (learngenes, tailors), min(_TRIAL, sweeps), tolerance, total
        )
        if best is None or objective[-1] < best[1][-1]:
            best = name, objective, found
        if objective[-1] <= _EXACT:
            break
    assert best is not None, "at least one beginning"
    name, objective, found = best
    more, found = _descend(weights, share, found, (learngenes, tailors), sweeps - len(objective) + 1, tolerance, total)
    objective += more[1:]
    shared = factors(found, learngenes)
    return Joint(
        shared=shared,
        start=name,
        objective=tuple(objective),
        norms=np.sqrt(energy),
        **_tailored(weights, shared, tailors),
    )


def common_starts(
    weights: Sequence[Float[np.ndarray, "d_in d_out"]], share: Float[np.ndarray, " G"], learngenes: int
) -> dict[str, Float[np.ndarray, "d_in d_out"]]:
    """The weighted mean, and its projection on the column and row spaces that all weights together use most.

    The spaces are the leading singular vectors of the weights side by side, and one above the other.
    """
    mean = weighted_mean(weights, share)
    left = sum(p * (w @ w.T) for p, w in zip(share, _wide(weights), strict=True))
    right = sum(p * (w.T @ w) for p, w in zip(share, _wide(weights), strict=True))
    u, v = (np.linalg.eigh(gram)[1][:, ::-1][:, :learngenes] for gram in (left, right))
    return {"mean": mean, "spaces": u @ (u.T @ mean @ v) @ v.T}


def weighted_mean(
    weights: Sequence[Float[np.ndarray, "d_in d_out"]], share: Float[np.ndarray, " G"]
) -> Float[np.ndarray, "d_in d_out"]:
    """sum_g share_g W_g in float64."""
    return np.sum([p * w for p, w in zip(share, _wide(weights), strict=True)], axis=0)


def truncated(kernel: Float[np.ndarray, "d_in d_out"], rank: int) -> Float[np.ndarray, "d_in d_out"]:
    """The best approximation of this rank."""
    if rank >= min(kernel.shape):
        return kernel
    if kernel.shape[0] > kernel.shape[1]:
        return truncated(kernel.T, rank).T
    u = np.linalg.eigh(kernel @ kernel.T)[1][:, -rank:]  # ascending
    return u @ (u.T @ kernel)


def _descend(
    weights: Sequence[np.ndarray], share: np.ndarray, shared: np.ndarray, ranks: tuple[int, int], sweeps: int,
    tolerance: float, total: float,
) -> tuple[list[float], np.ndarray]:  # fmt: skip
    """The objective before every sweep and at the end, and the shared part that it ends with."""
    objective: list[float] = []
    while True:
        mean, left = np.zeros_like(shared), 0.0
        for p, w in zip(share, _wide(weights), strict=True):
            own = truncated(w - shared, ranks[1])
            left += p * float(np.sum((w - shared - own) ** 2))
            mean += p * (w - own)
        objective.append(left / total)
        slow = len(objective) > 1 and objective[-2] - objective[-1] <= tolerance * objective[-2]
        if slow or objective[-1] <= _EXACT or len(objective) > sweeps:
            return objective, shared
        shared = truncated(mean, ranks[0])


def _tailored(weights: Sequence[np.ndarray], shared: Components, tailors: int) -> dict[str, Any]:
    """The best tailors beside the shared part as it is in float32, and what is left."""
    always, parts, apart, errors = components.product(shared), [], [], []
    for w in _wide(weights):
        own = factors(w - always, tailors)
        parts.append(own)
        apart.append(float(np.linalg.norm(w - always)))
        errors.append(float(np.linalg.norm(w - always - components.product(own))))
    own = Components(*(np.stack(a) for a in zip(*parts, strict=True)))
    return {"own": own, "apart": np.array(apart), "errors": np.array(errors)}


def factors(kernel: Float[np.ndarray, "d_in d_out"], count: int) -> Components:
    """The leading components in float32; those of a weight that has fewer are orthonormal directions with s = 0."""
    return factorise(kernel, count, method=method_of(kernel.shape, count, None), seed=0)


def _wide(weights: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    return (np.asarray(w, np.float64) for w in weights)
