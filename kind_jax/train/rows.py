"""Work on the rows of the tailor bank that a batch switches on, and on no others.

A bank of many groups is far larger than what one batch uses, and AdamW and the moving average would walk over all of it
in every step. Where at most half of the rows can be in use, the step takes them out, with their moments and averages,
does everything on these few, and puts them back: its cost no longer depends on the number of groups.

Nothing is approximated. Lazy Adam leaves absent rows alone by definition, and the moving average of a row that stood
still for a while has a closed form, for which ``TrainState.averaged`` remembers when each row was last brought up to
date.

Dimensions: R rows that are taken out, a number that depends on shapes only; where fewer are in use, the surplus has
numbers beyond the end: reading it gives zeros, writing it does nothing.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kind_jax import partition
from kind_jax.partition import TAILORS
from kind_jax.train.lazy import LazyAdamState


def in_use(index: Int[Array, "... k"], count: int, groups: int) -> Int[Array, " R"]:
    """The rows that some sample names, in order, and numbers from ``groups`` on for the surplus, each once."""
    rows = jnp.unique(index.reshape(-1), size=count, fill_value=groups)
    return jnp.where(rows < groups, rows, groups + jnp.arange(count, dtype=rows.dtype))


def among(index: Int[Array, "... k"], rows: Int[Array, " R"]) -> Int[Array, "... k"]:
    """The same index over a bank that holds only ``rows``."""
    return jnp.searchsorted(rows, index).astype(jnp.int32)


def take(tree: Any, rows: Int[Array, "*shards R"]) -> Any:
    """Of every shard of each leaf, ``rows``, side by side."""

    def of(a: Array) -> Array:
        return over_shards(lambda a, rows: a.at[rows].get(mode="fill", fill_value=0, unique_indices=True), rows, a)

    return jax.tree.map(of, tree)


def put(tree: Any, rows: Int[Array, "*shards R"], values: Any) -> Any:
    def of(a: Array, new: Array) -> Array:
        return over_shards(lambda a, new, rows: a.at[rows].set(new, mode="drop", unique_indices=True), rows, a, new)

    return jax.tree.map(of, tree, values)


def over_shards(f: Any, rows: Int[Array, "*shards R"], *leaves: Array) -> Array:
    """``f(*leaves, rows)`` for every shard of the leaves' leading axis; where ``rows`` has one axis there is one shard.

    As shards are a batch axis of the look-up, each device looks into its own: XLA sends nothing.
    """
    if rows.ndim == 1:
        return f(*leaves, rows)
    shards = rows.shape[0]
    found = jax.vmap(f)(*(a.reshape(shards, a.shape[0] // shards, *a.shape[1:]) for a in leaves), rows)
    return found.reshape(-1, *found.shape[2:])


def take_from(collections: partition.Collections, rows: Int[Array, "*shards R"]) -> partition.Collections:
    """Collections whose bank holds only ``rows``; a collection that is absent stays absent."""
    return {name: take(tree, rows) if name == TAILORS else tree for name, tree in collections.items()}


def put_into(
    collections: partition.Collections, rows: Int[Array, "*shards R"], values: partition.Collections
) -> partition.Collections:
    return {name: put(collections[name], rows, tree) if name == TAILORS else tree for name, tree in values.items()}


def take_moments(opt: Any, rows: Int[Array, "*shards R"]) -> Any:
    """Optimizer state whose lazy Adam holds only ``rows``."""
    return jax.tree.map(lambda s: take(s, rows) if _lazy(s) else s, opt, is_leaf=_lazy)


def lazy(opt: Any) -> list[LazyAdamState]:
    """The states of lazy Adam within an optimizer's, in order."""
    return [leaf for leaf in jax.tree.leaves(opt, is_leaf=_lazy) if _lazy(leaf)]


def with_lazy(opt: Any, states: list[LazyAdamState]) -> Any:
    """``opt`` with others in their place."""
    rest = iter(states)
    return jax.tree.map(lambda s: next(rest) if _lazy(s) else s, opt, is_leaf=_lazy)


def put_moments(opt: Any, rows: Int[Array, "*shards R"], values: Any) -> Any:
    return jax.tree.map(lambda s, new: put(s, rows, new) if _lazy(s) else new, opt, values, is_leaf=_lazy)


def _lazy(state: Any) -> bool:
    return isinstance(state, LazyAdamState)


def decay(ema: float, step: Int[Array, "*r"]) -> Float[Array, "*r"]:
    """Decay of the moving average at ``step`` = 1, 2, ...

    Early on the average follows closely, or it would remember the initialisation for 1 / (1 - ema) steps.
    """
    return jnp.minimum(ema, (1 + step) / (10 + step))


def decay_between(ema: float, after: Int[Array, "*r"], until: Int[Array, ""]) -> Float[Array, "*r"]:
    """The product of :func:`decay` over steps ``after`` + 1 to ``until``; 1 where there are none.

    While (1 + n) / (10 + n) is the smaller one, the product telescopes to nine factors.
    """
    turn = min(max(math.ceil((10 * ema - 1) / (1 - ema)) - 1, 0), 2**31 - 1)  # the last step of that phase
    first, last = (jnp.minimum(n, turn) for n in (after, until))
    early = functools.reduce(jnp.multiply, [(first + j) / (last + j) for j in range(2, 11)])
    return early * ema ** (jnp.maximum(until, turn) - jnp.maximum(after, turn))


def caught_up(average: Any, weights: Any, factor: Float[Array, " R"]) -> Any:
    """The average of rows whose weights stood still while the decays multiplied to ``factor``."""

    def of(e: Float[Array, "R ..."], w: Float[Array, "R ..."]) -> Float[Array, "R ..."]:
        return w + factor.reshape((-1,) + (1,) * (e.ndim - 1)) * (e - w)

    return jax.tree.map(of, average, weights)
