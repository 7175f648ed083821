"""Initial weights, drawn on the host.

NumPy draws and factors them: the same seed gives the same model on every accelerator, mesh and JAX version, nothing has
to be compiled, and LAPACK's SVD is far faster than an accelerator's.

The components of a factored weight come from the SVD of the usual dense initialisation, as in KIND's sister paper
DivMorph (2026), which factors randomly initialised weights before training. A weight is W [d_in, d_out], used as
x @ W, and W = u @ diag(s) @ v.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kind_jax.config import Energy


class Components(NamedTuple):
    """n rank-one components, W = u @ diag(s) @ v; tailors carry a leading group axis on all three."""

    u: Float[np.ndarray, "*groups d_in n"]
    s: Float[np.ndarray, "*groups n"]
    v: Float[np.ndarray, "*groups n d_out"]


def deal(
    pool: int, learngenes: int, groups: int, tailors: int
) -> tuple[Int[np.ndarray, " n_g"], Int[np.ndarray, "groups n_t"]]:
    """Which component each learngene and each tailor starts from; numbers >= ``pool`` ask for a fresh, silent one.

    Learngenes take the first N_G. Groups take disjoint blocks of the rest while it lasts and then start over, so that
    groups may begin alike, but one group never holds a component twice.
    """
    rest = max(pool - learngenes, 0)
    block = np.arange(groups)[:, None] * tailors + np.arange(tailors)[None, :]
    if rest >= max(tailors, 1):
        return np.arange(learngenes), learngenes + block % rest
    own = np.arange(tailors)
    own = np.where(own < rest, learngenes + own, max(pool, learngenes) + own - rest)
    return np.arange(learngenes), np.broadcast_to(own, block.shape)


class Initializer:
    """Draws initial weights in the order in which they are asked for."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def zeros(self, *shape: int) -> Float[np.ndarray, ...]:
        return np.zeros(shape, np.float32)

    def normal(self, *shape: int, stddev: float) -> Float[np.ndarray, ...]:
        return np.float32(stddev) * self._rng.standard_normal(shape, np.float32)

    def uniform(self, *shape: int, bound: float) -> Float[np.ndarray, ...]:
        """Between -bound and bound."""
        return np.float32(bound) * (2 * self._rng.random(shape, np.float32) - 1)

    def ones(self, *shape: int) -> Float[np.ndarray, ...]:
        return np.ones(shape, np.float32)

    def xavier_uniform(self, d_in: int, d_out: int) -> Float[np.ndarray, "d_in d_out"]:
        """DiT's initialisation of every linear layer of a block."""
        bound = np.float32((6.0 / (d_in + d_out)) ** 0.5)
        return bound * (2 * self._rng.random((d_in, d_out), np.float32) - 1)

    def components(
        self,
        d_in: int,
        d_out: int,
        *,
        learngenes: int,
        tailors: int,
        groups: int,
        energy: Energy = "rescale",
        zero: bool = False,
    ) -> tuple[Components, Components]:
        """Learngenes and tailors of one weight.

        With ``energy`` none or shuffle and N_G + groups * N_T = min(d_in, d_out), all components together
        are exactly the dense initialisation. ``rescale`` multiplies s by one number such that learngenes plus one group
        have, on average over groups, the energy of the dense weight.

        Args:
          learngenes, tailors: N_G, and N_T of each group.
          energy: see :class:`kind_jax.config.FactorConfig`.
          zero: whether the weight starts at 0 (adaLN-zero). An SVD of 0 has no directions, so u and v are those of a
            random weight and s = 0: s learns at once, u and v from the second step.

        Returns:
          learngenes (u [d_in, N_G], s [N_G], v [N_G, d_out]) and tailors (the same with N_T, behind a group axis).
        """
        u, s, v = np.linalg.svd(self.xavier_uniform(d_in, d_out), full_matrices=False)
        pool, total = len(s), np.sum(s**2)
        if energy in ("shuffle", "shuffle_rescale"):
            order = self._rng.permutation(pool)
            u, s, v = u[:, order], s[order], v[order]
        shared, own = deal(pool, learngenes, groups, tailors)
        # More components than the weight has: the surplus starts with a direction but no weight.
        fresh = max(int(max(shared.max(initial=-1), own.max(initial=-1))) + 1 - pool, 0)
        u = np.concatenate([u, self.normal(d_in, fresh, stddev=d_in**-0.5)], axis=1)
        v = np.concatenate([v, self.normal(fresh, d_out, stddev=d_out**-0.5)], axis=0)
        s = np.concatenate([s, np.zeros(fresh, np.float32)])
        if energy in ("rescale", "shuffle_rescale"):
            active = np.sum(s[shared] ** 2) + np.mean(np.sum(s[own] ** 2, axis=1))
            s = s * np.sqrt(total / active)
        if zero:
            s = np.zeros_like(s)
        return Components(u[:, shared], s[shared], v[shared]), Components(np.moveaxis(u[:, own], 0, 1), s[own], v[own])


class ShapesOnly(Initializer):
    """Answers with arrays of the right shape that take no memory: every element is the same zero."""

    def __init__(self) -> None:
        super().__init__(0)

    def zeros(self, *shape: int) -> Float[np.ndarray, ...]:
        return np.broadcast_to(np.float32(0), shape)

    def normal(self, *shape: int, stddev: float) -> Float[np.ndarray, ...]:
        del stddev
        return self.zeros(*shape)

    def uniform(self, *shape: int, bound: float) -> Float[np.ndarray, ...]:
        del bound
        return self.zeros(*shape)

    def ones(self, *shape: int) -> Float[np.ndarray, ...]:
        return self.zeros(*shape)

    def xavier_uniform(self, d_in: int, d_out: int) -> Float[np.ndarray, "d_in d_out"]:
        return self.zeros(d_in, d_out)

    def components(
        self,
        d_in: int,
        d_out: int,
        *,
        learngenes: int,
        tailors: int,
        groups: int,
        energy: Energy = "rescale",
        zero: bool = False,
    ) -> tuple[Components, Components]:
        del energy, zero
        u, s, v = (d_in, learngenes), (learngenes,), (learngenes, d_out)
        u_t, s_t, v_t = (groups, d_in, tailors), (groups, tailors), (groups, tailors, d_out)
        return (
            Components(self.zeros(*u), self.zeros(*s), self.zeros(*v)),
            Components(self.zeros(*u_t), self.zeros(*s_t), self.zeros(*v_t)),
        )
