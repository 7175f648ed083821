"""A low-rank weight of its own for each sample: y[b] = x[b] u[b]ᵀ diag(s[b]) v[b].

Dimensions: B samples, T tokens, n components, d_in and d_out features. Components are rows, so that every product runs
along features, which are many, and not along components, which are few.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Up to this many components, y is a sum of n outer products that XLA fuses into whatever reads it, instead of a batched
# product that is written out and read again.
FUSE_UP_TO = 8


def _expand(h: Float[Array, "B n T"], v: Float[Array, "B n d"]) -> Float[Array, "B T d"]:
    n = v.shape[1]
    if n > FUSE_UP_TO:
        return jnp.einsum("bnt,bnd->btd", h, v)
    terms = [h[:, i, :, None] * v[:, i, None, :] for i in range(n)]
    return sum(terms[1:], start=terms[0])


@jax.custom_vjp
def low_rank(
    x: Float[Array, "B T d_in"], u: Float[Array, "B n d_in"], s: Float[Array, "B n"], v: Float[Array, "B n d_out"]
) -> Float[Array, "B T d_out"]:
    """Apply each sample's own components."""
    return _forward(x, u, s, v)[0]


def _forward(x, u, s, v):
    h = jnp.einsum("bnd,btd->bnt", u, x)
    return _expand(h * s[:, :, None], v), (x, u, s, v, h)


def _backward(residuals, dy):
    x, u, s, v, h = residuals
    dh = jnp.einsum("bnd,btd->bnt", v, dy)
    ds = jnp.einsum("bnt,bnt->bn", h, dh, preferred_element_type=jnp.float32).astype(s.dtype)
    h, dh = h * s[:, :, None], dh * s[:, :, None]
    du = jnp.einsum("bnt,btd->bnd", dh, x)
    dv = jnp.einsum("bnt,btd->bnd", h, dy)
    return _expand(dh, u), du, ds, dv


low_rank.defvjp(_forward, _backward)
