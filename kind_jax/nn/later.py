"""Order between operations that no data orders, for the sake of memory."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

T = TypeVar("T")


def later(tree: T, after: Num[Array, ...]) -> T:
    """``tree``, made in memory and not before ``after``: nothing that is made of it is made earlier, and kept.

    XLA:CPU drops barriers. There, it is one branch of a choice that XLA cannot foresee; the other is taken where
    ``after`` begins with NaN, and gives NaN or nonsense too.
    """
    if jax.default_backend() != "cpu":
        return jax.lax.optimization_barrier((tree, after))[0]
    return jax.lax.cond(
        jnp.isnan(after.reshape(-1)[0]),
        lambda leaves: jax.tree.map(lambda leaf: leaf + 1, leaves),
        lambda same: same,
        tree,
    )
