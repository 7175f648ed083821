"""Low-rank weights that several samples share: y[b] = w[b] x[b] u[g] diag(s[g]) v[g], where sample b is of cohort g.

In class-grouped training samples of one class, a *cohort*, lie together in a batch. Their tokens go through the class's
components side by side, in one product that sums the gradient of these too, and nothing is kept for each sample.

Dimensions: B samples, G cohorts of B / G samples each, T tokens of a sample, k groups that are on, N_T components of
one group, n = k N_T components, d_in and d_out features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kind_jax.nn.later import by_itself, later


class Factors(NamedTuple):
    """Rank-one pieces whose scale is in v."""

    u: Float[Array, "*G d_in n"]
    v: Float[Array, "*G n d_out"]


@jax.custom_vjp
def low_rank(
    x: Float[Array, "B T d_in"],
    shared: Factors | None,
    own: Factors,
    weight: Float[Array, "B n"],
) -> Float[Array, "B T d_out"]:
    """Apply components that all cohorts share, and each cohort's own ones.

    One product has both: two would read the tokens twice, and keep them twice for the backward pass.

    Args:
      shared: u [d_in, m], v [m, d_out]; None: there are none.
      own: u [G, d_in, n], v [G, n, d_out].
      weight: of the own components: a sample of the null class keeps its row of the bank, at weight 0.
    """
    return _forward(x, shared, own, weight)[0]


def _forward(x, shared, own, weight):
    def one(tokens, own, weight):
        u, v, w = _beside(shared, own, weight)
        h = _weighted(tokens @ u, w)
        return (h @ v, h), ()

    (y, h), _ = _over_cohorts(one, _by_cohort(x, own), own, _by_cohort(weight, own))
    return y.reshape(*x.shape[:2], -1), (x, shared, own, weight, h)


def _backward(residuals, dy):
    x, shared, own, weight, h = residuals
    # Put side by side anew: kept from the forward pass, these would take more memory than the tokens.
    shared, own = later((shared, own), dy)

    def one(tokens, dy, h, own, weight):
        u, v, w = _beside(shared, own, weight)
        dh = _weighted(dy @ v.T, w)
        du, dv, dx = tokens.T @ dh, h.T @ dy, dh @ u.T
        m = 0 if shared is None else shared.u.shape[1]
        return (dx, Factors(du[:, m:], dv[m:])), None if shared is None else Factors(du[:, :m], dv[:m])

    (dx, of_own), of_shared = _over_cohorts(
        one, _by_cohort(x, own), _by_cohort(dy, own), h, own, _by_cohort(weight, own)
    )
    return dx.reshape(x.shape), of_shared, of_own, jnp.zeros_like(weight)


low_rank.defvjp(_forward, _backward)


def _over_cohorts(one: Callable[..., tuple[Any, Any]], *each: Any) -> tuple[Any, Any]:
    """What ``one`` gives first for each cohort of its arguments, and the sum of what it gives second, in float32.

    XLA:CPU computes the products of a batch one after another on a single core, but a plain product on all of them. On
    a mesh the cohorts are split over devices, and only a batch may be.
    """
    if jax.default_backend() == "cpu" and jax.device_count() == 1:
        return by_itself(functools.partial(_one_by_one, one), *each)
    alone, parts = jax.vmap(one)(*each)
    return alone, jax.tree.map(lambda a: jnp.sum(a, axis=0, dtype=jnp.float32).astype(a.dtype), parts)


def _one_by_one(one: Callable[..., tuple[Any, Any]], *each: Any) -> tuple[Any, Any]:
    def body(total: Any, args: Any) -> tuple[Any, Any]:
        alone, part = one(*args)
        return jax.tree.map(lambda a, b: a + b.astype(a.dtype), total, part), alone

    shapes = jax.eval_shape(lambda *args: one(*jax.tree.map(lambda a: a[0], args))[1], *each)
    total, alone = jax.lax.scan(body, jax.tree.map(lambda a: jnp.zeros(a.shape, jnp.float32), shapes), each)
    return alone, jax.tree.map(lambda a, like: a.astype(like.dtype), total, shapes)


def _by_cohort(a: Array, own: Factors) -> Array:
    """[G, rows, features] of samples [B, ..., features], whose tokens are rows alike."""
    return a.reshape(len(own.u), -1, a.shape[-1])


def _weighted(h: Float[Array, "rows n"], weight: Float[Array, "m n"]) -> Float[Array, "rows n"]:
    """``h`` of the tokens of m samples, times the weights of these."""
    return (h.reshape(len(weight), -1, h.shape[1]) * weight[:, None, :]).reshape(h.shape)


def _beside(shared: Factors | None, own: Factors, weight: Float[Array, "m n"]) -> tuple[Array, Array, Array]:
    """All components of a cohort side by side, and their weights for each of its m samples."""
    if shared is None:
        return own.u, own.v, weight
    always = jnp.ones((len(weight), shared.u.shape[1]), weight.dtype)
    return (
        jnp.concatenate([shared.u, own.u], axis=1), jnp.concatenate([shared.v, own.v]),
        jnp.concatenate([always, weight], axis=1),
    )  # fmt: skip
