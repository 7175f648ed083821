"""Adam that leaves the tailors of absent groups exactly as they are.

With many classes a group is absent from most batches. Its gradient is zero, but plain Adam still moves it by its
momentum and decays its second moment; here neither moves, and the bias correction counts the group's own updates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int


class LazyAdamState(NamedTuple):
    count: Int[Array, " groups"]  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: Any
    nu: Any


def _rows(values: Array, leaf: Array) -> Array:
    """One value per group, shaped to multiply a leaf whose leading axis is the group."""
    return values.reshape((-1,) + (1,) * (leaf.ndim - 1))


def scale_by_lazy_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformationExtraArgs:
    """Adam on leaves [groups, ...]; ``update`` takes ``present``, bool [groups]."""

    def init(params: Any) -> LazyAdamState | optax.EmptyState:
        leaves = jax.tree.leaves(params)
        if not leaves:  # a model without tailors
            return optax.EmptyState()
        groups = leaves[0].shape[0]
        zeros = jax.tree.map(jnp.zeros_like, params)
        return LazyAdamState(jnp.zeros(groups, jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(
        updates: Any,
        state: LazyAdamState | optax.EmptyState,
        params: Any = None,
        *,
        present: Bool[Array, " groups"],
        **extra: Any,
    ) -> tuple[Any, LazyAdamState | optax.EmptyState]:
        del params, extra
        if isinstance(state, optax.EmptyState):
            return updates, state
        count = state.count + present.astype(jnp.int32)
        seen = jnp.maximum(count, 1)

        def average(decay: float, old: Array, new: Array) -> Array:
            return jnp.where(_rows(present, old), decay * old + (1 - decay) * new, old)

        def direction(m: Array, v: Array) -> Array:
            m_hat = m / _rows(1 - b1**seen, m)
            v_hat = v / _rows(1 - b2**seen, v)
            return jnp.where(_rows(present, m), m_hat / (jnp.sqrt(v_hat) + eps), 0)

        mu = jax.tree.map(lambda m, g: average(b1, m, g), state.mu, updates)
        nu = jax.tree.map(lambda v, g: average(b2, v, g * g), state.nu, updates)
        return jax.tree.map(direction, mu, nu), LazyAdamState(count, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def keep_absent() -> optax.GradientTransformationExtraArgs:
    """Zero the update of absent groups, whatever earlier transformations (weight decay) made of it."""

    def update(
        updates: Any, state: Any, params: Any = None, *, present: Bool[Array, " groups"], **extra: Any
    ) -> tuple[Any, Any]:
        del params, extra
        return jax.tree.map(lambda u: jnp.where(_rows(present, u), u, 0), updates), state

    return optax.GradientTransformationExtraArgs(
        optax.init_empty_state,
        update,  # pyright: ignore[reportArgumentType]
    )
