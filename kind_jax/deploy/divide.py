"""One projection of a dense model: which of its components are learngenes, which are tailors, and what is lost."""

from __future__ import annotations

import dataclasses
import time
from typing import Literal, cast

import numpy as np
from jaxtyping import Float, Int

from kind_jax.deploy import components
from kind_jax.deploy.factorise import Method, factorise, method_of
from kind_jax.deploy.weights import Weight
from kind_jax.nn.init import Components, deal

Residual = Literal["spectrum", "shared", "zero"]
"""What tailors begin with. ``spectrum``: groups are dealt disjoint blocks of the components after the learngenes, and
begin again at the first when there are no more. ``shared``: every group has the next N_T components, so that learngenes
and the tailors of any group are the best approximation of rank N_G + N_T. ``zero``: random directions with s = 0, so
that learngenes alone carry what is carried. Tailors beyond the rank of a weight are as with ``zero``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """What became of one projection.

    Attributes:
      name: block and projection, like ``3/qkv``.
      shape: (d_in, d_out).
      learngenes, tailors: components that all classes share, and of each group.
      norm: Frobenius norm of the dense weight.
      energy_learngenes: share of norm² that learngenes keep.
      energy: share that learngenes and one group's tailors keep, mean over groups.
      error, error_max: Frobenius norm of the dense weight minus learngenes and own tailors, relative to ``norm``: mean
        and maximum over groups, measured on the float32 components.
      seconds: that it took.
      method: of the decomposition.
    """

    name: str
    shape: tuple[int, int]
    learngenes: int
    tailors: int
    norm: float
    energy_learngenes: float
    energy: float
    error: float
    error_max: float
    seconds: float
    method: Method


def divide(
    weight: Weight,
    *,
    norm: float,
    learngenes: int | None,
    tailors: int,
    groups: int,
    residual: Residual,
    randomised: bool | None,
    seed: tuple[int, int],
) -> tuple[Weight, Layer]:
    """Turn a dense weight into learngenes and tailors.

    Args:
      weight: with a kernel of finite numbers.
      norm: Frobenius norm of the kernel.
      learngenes: N_G; None is the full rank.
      tailors: N_T of each of ``groups`` groups.
      residual: what tailors begin with.
      randomised: how the components are found; None decides by shape and number.
      seed: of the run, and the number of the weight.

    Returns:
      The same weight as components, and its record.
    """
    begin, kernel = time.perf_counter(), weight.kernel
    assert kernel is not None
    shape = cast(tuple[int, int], kernel.shape)
    pool = min(shape)
    shared = pool if learngenes is None else learngenes
    dealt = _dealt(residual, pool, shared, groups, tailors)
    wanted = max(shared, int(np.max(dealt[dealt < pool], initial=-1)) + 1)
    method, rng = method_of(shape, wanted, randomised), np.random.default_rng(seed)
    parts = factorise(kernel, wanted, method=method, seed=int(rng.integers(2**32)))
    # What is beyond the rank has a direction, so that it can learn, but no weight.
    parts = _with_silent(parts, max(int(dealt.max()) + 1 - pool, 0), rng)
    dealt = np.where(dealt < pool, dealt, dealt - pool + wanted)
    always, own = components.take(parts, np.arange(shared)), _of_groups(parts, dealt)
    energies = components.energies(parts)
    total = norm**2 or 1.0
    kept = float(energies[:shared].sum()) / total if norm else 1.0
    with_own = kept + float(energies[dealt].sum(-1).mean()) / total
    errors = _errors(kernel, parts, shared, dealt, energies) / (norm or 1.0)
    layer = Layer(
        name=weight.name, shape=shape, learngenes=shared, tailors=tailors, norm=norm,
        energy_learngenes=min(kept, 1.0), energy=min(with_own, 1.0), error=float(errors.mean()),
        error_max=float(errors.max()), seconds=time.perf_counter() - begin, method=method,
    )  # fmt: skip
    return Weight(name=weight.name, kernel=None, shared=always, own=own, bias=weight.bias), layer


def _dealt(
    residual: Residual, pool: int, learngenes: int, groups: int, tailors: int
) -> Int[np.ndarray, "groups tailors"]:
    """Which component each tailor begins as; numbers from ``pool`` on ask for a silent one."""
    if residual == "spectrum":
        return deal(pool, learngenes, groups, tailors)[1]
    first = learngenes if residual == "shared" else pool
    return np.broadcast_to(first + np.arange(tailors), (groups, tailors))


def _with_silent(parts: Components, count: int, rng: np.random.Generator) -> Components:
    """``parts`` and ``count`` more with s = 0 and random directions of length 1, the same for all groups."""
    if not count:
        return parts
    u, v = (rng.standard_normal((count, n), np.float32) for n in (parts.u.shape[0], parts.v.shape[1]))
    u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (u, v))
    return components.chain(parts, Components(u.T, np.zeros(count, np.float32), v))


def _of_groups(parts: Components, dealt: Int[np.ndarray, "groups tailors"]) -> Components:
    """The tailors of every group; groups that begin alike are one array in memory until they are stacked."""
    if np.all(dealt == dealt[:1]):
        one = components.take(parts, dealt[0])
        return Components(*(np.broadcast_to(a[None], (len(dealt), *a.shape)) for a in one))
    return Components(np.moveaxis(parts.u[:, dealt], 0, 1), parts.s[dealt], parts.v[dealt])


def _errors(
    kernel: Float[np.ndarray, "d_in d_out"],
    parts: Components,
    learngenes: int,
    dealt: Int[np.ndarray, "groups tailors"],
    energies: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " groups"]:
    """Frobenius norm of the kernel minus learngenes and own tailors, for each group without forming its weight.

    The components of a group are orthogonal, so each takes 2 s uᵀ R v - (s |u| |v|)² off the square of the rest R.
    """
    u, s, v = (np.asarray(a, np.float64) for a in parts)
    rest = kernel - (u[:, :learngenes] * s[:learngenes]) @ v[:learngenes]
    gain = np.zeros(len(s))
    used = np.unique(dealt[s[dealt] > 0])
    gain[used] = 2 * s[used] * np.sum((u[:, used].T @ rest) * v[used], axis=1) - energies[used]
    return np.sqrt(np.maximum(np.sum(rest**2) - gain[dealt].sum(-1), 0.0))
