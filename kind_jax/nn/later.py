"""Order between operations that no data orders, for the sake of memory. XLA:CPU drops barriers; it must not see through
these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Num

T = TypeVar("T")


def later(tree: T, after: Num[Array, ...]) -> T:
    """``tree``, whose use waits for ``after``, so that what is made of it is not made, and kept, from early on."""
    if jax.default_backend() != "cpu":
        return jax.lax.optimization_barrier((tree, after))[0]
    tie = _nan(after)  # adds 0, unless all is lost anyway
    return jax.tree.map(lambda leaf: leaf + tie.astype(leaf.dtype), tree)


def apart(tree: T, after: Num[Array, ...]) -> T:
    """``tree`` in memory, before anything is made of it: nothing reads what it was made from any more."""
    if jax.default_backend() != "cpu":
        return jax.lax.optimization_barrier(tree)
    return jax.lax.cond(
        _nan(after), lambda leaves: jax.tree.map(lambda leaf: leaf + 1, leaves), lambda same: same, tree
    )


def by_itself(f: Callable[..., T], *args: Any) -> T:
    """f(*args) on a single CPU, whose arguments are in memory, and whose own arrays are there no earlier than these.

    Otherwise XLA:CPU makes the arguments anew, and keeps them, for each shape in which they are read; and what depends
    on none, such as the zeros that a loop fills, at the very beginning of the program.
    """
    lost = jax.eval_shape(f, *args)
    return jax.lax.cond(
        _nan(jax.tree.leaves(args)[0]),
        lambda *_: jax.tree.map(lambda a: jnp.full(a.shape, jnp.nan, a.dtype), lost),
        f, *args,
    )  # fmt: skip


def _nan(after: Num[Array, ...]) -> Bool[Array, ""]:
    return jnp.isnan(after.reshape(-1)[0])
