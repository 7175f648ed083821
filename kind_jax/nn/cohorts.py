"""Low-rank weights that several samples share: y[b] = w[b] x[b] u[g] diag(s[g]) v[g], where sample b is of cohort g.

In class-grouped training samples of one class, a *cohort*, lie together in a batch. Their tokens go through the class's
components side by side, in one product that sums the gradient of these too, and nothing is kept for each sample.

Dimensions: B samples, G cohorts of B / G samples each, T tokens of a sample, k groups that are on, N_T components of
one group, n = k N_T components, d_in and d_out features.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kind_jax.nn.later import later


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
    u, v, w = _beside(shared, own, weight)
    B, T, d_in = x.shape
    h = jnp.einsum("gtd,gdn->gtn", x.reshape(len(u), -1, d_in), u)
    h = (h.reshape(B, T, -1) * w[:, None, :]).reshape(h.shape)
    y = jnp.einsum("gtn,gnd->gtd", h, v).reshape(B, T, v.shape[2])
    return y, (x, shared, own, weight, h)


def _backward(residuals, dy):
    x, shared, own, weight, h = residuals
    # Put together anew: kept from the forward pass, these would take more memory than the tokens.
    u, v, w = _beside(*later((shared, own), dy), weight)
    B, T, d_in = x.shape
    tokens, dy = x.reshape(len(u), -1, d_in), dy.reshape(len(u), -1, dy.shape[2])
    dh = jnp.einsum("gtd,gnd->gtn", dy, v)
    dh = (dh.reshape(B, T, -1) * w[:, None, :]).reshape(h.shape)
    du, dv = jnp.einsum("gtd,gtn->gdn", tokens, dh), jnp.einsum("gtn,gtd->gnd", h, dy)
    dx = jnp.einsum("gtn,gdn->gtd", dh, u).reshape(x.shape)
    if shared is None:
        return dx, None, Factors(du, dv), jnp.zeros_like(weight)
    m = shared.u.shape[1]
    of_all = [jnp.sum(a, axis=0, dtype=jnp.float32).astype(a.dtype) for a in (du[:, :, :m], dv[:, :m])]
    return dx, Factors(*of_all), Factors(du[:, :, m:], dv[:, m:]), jnp.zeros_like(weight)


low_rank.defvjp(_forward, _backward)


def _beside(shared: Factors | None, own: Factors, weight: Array) -> tuple[Array, Array, Array]:
    """All components of each cohort side by side, and their weights for each sample."""
    if shared is None:
        return own.u, own.v, weight
    u, v = (jnp.broadcast_to(a, (len(own.u), *a.shape)) for a in shared)
    always = jnp.ones((len(weight), shared.u.shape[1]), weight.dtype)
    return (
        jnp.concatenate([u, own.u], axis=2), jnp.concatenate([v, own.v], axis=1), jnp.concatenate([always, weight], 1),
    )  # fmt: skip
