"""What a bandit is tried in, as one program for all seeds: arms of given means, and a distillation in three numbers.

T: rounds, K: arms, S: seeds.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kind_jax.distillation import bandit

Played = tuple[Int[Array, "S T"], Float[Array, "S T"]]


def keys(seeds: int) -> Array:
    return jax.vmap(jax.random.key)(jnp.arange(seeds))


def steady(means: tuple[float, ...], rounds: int) -> np.ndarray:
    """Means that stay [T, K]."""
    return np.tile(np.asarray(means, np.float32), (rounds, 1))


def swapped(means: tuple[float, ...], rounds: int, at: int) -> np.ndarray:
    """The best and the worst arm change places before round ``at`` [T, K]."""
    found = steady(means, rounds)
    order = np.arange(len(means))
    order[[np.argmax(means), np.argmin(means)]] = np.argmin(means), np.argmax(means)
    found[at:] = found[at:, order]
    return found


def play(policy: str, means: np.ndarray, *, seeds: int, noise: float = 0.1, **settings: Any) -> Played:
    """Arms and their rewards, Gaussian around the arm's mean of the round.

    Args:
      noise: standard deviation of rewards.
      settings: of :func:`bandit.choose` and :func:`bandit.update`.
    """
    names, numbers = _parts(settings)
    return _play(policy, names, keys(seeds), jnp.asarray(means), jnp.float32(noise), numbers)


def distil(policy: str, *, factors: tuple[float, ...], rounds: int, seeds: int, **settings: Any) -> Played:
    """Arms, and the sum of all losses after each round: losses of 1, each multiplied by its factor when it is pulled.

    The reward is how much the sum fell.
    """
    names, numbers = _parts(settings)
    return _distil(policy, names, keys(seeds), jnp.asarray(factors, jnp.float32), rounds, numbers)


def _parts(settings: Mapping[str, Any]) -> tuple[tuple[tuple[str, Any], ...], dict[str, Any]]:
    """Static settings, and numbers for which nothing is compiled anew."""
    static = ("window", "scale_window", "reward_scale", "variant")
    numbers = {name: jnp.float32(value) for name, value in settings.items() if name not in static}
    return tuple((name, settings[name]) for name in static if name in settings), numbers


@functools.partial(jax.jit, static_argnums=(0, 1))
def _play(policy: str, names: Any, keys: Any, means: Any, noise: Any, numbers: Any) -> Played:
    settings = dict(names) | numbers

    def one(key: Any) -> Any:
        choices, draws = jax.random.split(key)
        rewards = means + noise * jax.random.normal(draws, means.shape)

        def step(state: bandit.State, given: Any) -> Any:
            i, key, rewards = given
            arm = bandit.choose(policy, state, key, i, **settings)
            return bandit.update(state, arm, rewards[arm], **settings), (arm, rewards[arm])

        rounds = jnp.arange(len(means))
        inputs = rounds, jax.random.split(choices, len(means)), rewards
        return jax.lax.scan(step, bandit.init(means.shape[1], **settings), inputs)[1]

    return jax.vmap(one)(keys)


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def _distil(policy: str, names: Any, keys: Any, factors: Any, rounds: int, numbers: Any) -> Played:
    settings = dict(names) | numbers

    def one(key: Any) -> Any:
        def step(carry: Any, given: Any) -> Any:
            (state, losses), (i, key) = carry, given
            arm = bandit.choose(policy, state, key, i, **settings)
            after = jnp.where(jnp.arange(len(factors)) == arm, losses * factors, losses)
            reward = bandit.reward(jnp.sum(losses), jnp.sum(after))
            return (bandit.update(state, arm, reward, **settings), after), (arm, jnp.sum(after))

        begin = bandit.init(len(factors), **settings), jnp.ones_like(factors)
        return jax.lax.scan(step, begin, (jnp.arange(rounds), jax.random.split(key, rounds)))[1]

    return jax.vmap(one)(keys)
