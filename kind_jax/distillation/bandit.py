"""A bandit whose arms are the modules to distil: discounted Thompson sampling, and what it is compared with.

After OPTIMA (Liang et al. 2023, arXiv 2310.04550): an arm is pulled by distilling its module for a while, its reward is
how much the loss fell, and rewards change as the student learns, so that old ones must be forgotten. The publication
names neither the posterior nor the discount; these are the conjugate Gaussian with discounted counts, and as variants
the DS-TS of Qi et al. 2023 (arXiv 2305.10718) and a sliding window (Trovò et al. 2020, doi 10.1613/jair.1.11407).

Everything is a pure function of a small state, and works under ``jax.jit``, ``vmap`` and ``lax.scan``: arms, rewards
and the numbers among the settings may be traced; names and lengths are Python's. The same calls outside make the same
choices. The functions take the fields of :class:`Settings` as keywords, and each heeds those that it needs, so that
one dictionary serves them all.

K: arms, W: rounds that the window looks back on, L: rewards that the scale is taken from.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kind_jax.errors import UserError

Variant = Literal["gaussian", "dsts", "window"]
Policy = Literal["gaussian", "dsts", "window", "uniform", "random", "greedy", "fixed"]
RewardKind = Literal["relative", "absolute"]
RewardScale = Literal["rms", "none"]

Number = Any
"""A Python number, or an array or tracer of one."""

_PYTHON = (int, float, np.number)


class Settings(NamedTuple):
    """What a bandit can be told.

    Attributes:
      variant: which posterior, see :func:`posterior`.
      gamma: what a round leaves of the past, in [0, 1].
      kappa0: pulls that the prior is worth, positive; not of ``"dsts"``.
      mu0: mean reward that an arm is believed to have before anything is seen.
      sigma: standard deviation of the rewards that is assumed.
      tau_max: greatest deviation of ``"dsts"``.
      window: W, of ``"window"``. As a memory, 50 rounds are what a discount of 0.98 is.
      scale_window: L.
      reward_scale: ``"rms"`` or ``"none"``, see :func:`scaled`; None: a reward counts as it is.
      clip: greatest size of a scaled reward.
      warmup: how often each arm is pulled in turn before :func:`choose` looks at rewards.
      fixed: the arm of the policy ``"fixed"``.
    """

    variant: Any = "gaussian"
    gamma: Number = 0.98
    kappa0: Number = 1.0
    mu0: Number = 0.0
    sigma: Number = 1.0
    tau_max: Number = 0.5
    window: Any = 50
    scale_window: Any = 20
    reward_scale: Any = None
    clip: Number = 3.0
    warmup: Number = 1
    fixed: Number = 0


class State(NamedTuple):
    """What a bandit remembers; arrays of shapes that do not change.

    Attributes:
      n: discounted number of pulls of each arm.
      s: discounted sum of the rewards of each arm.
      mean: ``s / n`` as it was after the arm's last pull. The quotient does not depend on later rounds, but its parts
        vanish in float32 after a few thousand.
      pulls: number of pulls of each arm, not discounted.
      t: rounds so far.
      seen: the last L rewards before they are scaled; a ring, as are the next two.
      counted: the last W rewards as they went into ``s``.
      arms: the arms of these, -1 where there is none yet.
    """

    n: Float[Array, " K"]
    s: Float[Array, " K"]
    mean: Float[Array, " K"]
    pulls: Int[Array, " K"]
    t: Int[Array, ""]
    seen: Float[Array, " L"]
    counted: Float[Array, " W"]
    arms: Int[Array, " W"]


def init(arms: Any, **settings: Any) -> State:
    """A bandit of so many arms that has seen nothing.

    Raises:
      UserError: ``arms`` or a window is not a positive whole number, or another setting is out of range.
    """
    known = _checked(settings)
    for name, value in (("arms", arms), ("window", known.window), ("scale_window", known.scale_window)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise UserError(f"{name} is {value!r}, but it must be a whole number from 1.")
    zeros = jnp.zeros(arms, jnp.float32)
    return State(
        n=zeros, s=zeros, mean=zeros, pulls=jnp.zeros(arms, jnp.int32), t=jnp.int32(0),
        seen=jnp.zeros(known.scale_window, jnp.float32), counted=jnp.zeros(known.window, jnp.float32),
        arms=jnp.full(known.window, -1, jnp.int32),
    )  # fmt: skip


def update(state: State, arm: Number, reward: Number, **settings: Any) -> State:
    """The state after a round: n <- gamma n + onehot(arm), s <- gamma s + onehot(arm) reward, whatever the variant.

    Args:
      reward: before it is scaled. One that is not finite counts as 0.

    Raises:
      UserError: the arm or a setting is a Python number out of range.
    """
    known, state = _checked(settings), _arrays(state)
    arms, window = len(state.n), len(state.counted)
    if isinstance(arm, float):  # a number between two arms would pull none
        raise UserError(f"arm is {arm}, but it must be a whole number.")
    _check("arm", arm, 0, arms - 1)
    counted = scaled(state, reward, reward_scale=known.reward_scale, clip=known.clip)
    pulled = jnp.arange(arms) == arm
    n = known.gamma * state.n + pulled
    s = known.gamma * state.s + jnp.where(pulled, counted, 0.0)
    newest = jnp.arange(window) == state.t % window
    return State(
        n=n,
        s=s,
        mean=jnp.where(pulled, s / jnp.where(pulled, n, 1.0), state.mean),
        pulls=state.pulls + pulled,
        t=state.t + 1,
        seen=_with(state, _finite(reward)),
        counted=jnp.where(newest, counted, state.counted),
        arms=jnp.where(newest, jnp.asarray(arm, jnp.int32), state.arms),
    )


def posterior(state: State, **settings: Any) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    """Mean and standard deviation of what is believed of each arm's mean reward.

    ``"gaussian"``: conjugate to Gaussian rewards, mean (s + kappa0 mu0) / (n + kappa0) and deviation
    sigma / sqrt(n + kappa0). What is not pulled returns to the prior, Normal(mu0, sigma² / kappa0).
    ``"window"``: the same with plain counts and sums of the last W rounds in the place of n and s.
    ``"dsts"``: mean s / n, which the arm's own pulls alone move, and deviation min(sigma / sqrt(n), tau_max); an arm
    never pulled has mu0 and tau_max. Published with sigma = 1 and mu0 = 0.

    Raises:
      UserError: there is no such variant, or a setting is a Python number out of range.
    """
    variant, _, kappa0, mu0, sigma, tau_max, *_ = _checked(settings)
    state = _arrays(state)
    if variant == "dsts":
        known = state.n > 0
        sd = jnp.where(known, sigma / jnp.sqrt(jnp.where(known, state.n, 1.0)), tau_max)
        return jnp.where(state.pulls > 0, state.mean, mu0), jnp.minimum(sd, tau_max)
    n, s = state.n, state.s
    if variant == "window":
        hit = state.arms[:, None] == jnp.arange(len(n))[None, :]
        n = jnp.sum(hit, axis=0, dtype=jnp.float32)
        s = jnp.sum(jnp.where(hit, state.counted[:, None], 0.0), axis=0)
    return (s + kappa0 * mu0) / (n + kappa0), sigma / jnp.sqrt(n + kappa0)


def sample(
    state: State, key: PRNGKeyArray | None = None, *, noise: Float[Array, " K"] | None = None, **settings: Any
) -> Int[Array, ""]:
    """The arm that is best in one draw from the posterior (Thompson sampling).

    Args:
      noise: standard normal numbers in the place of those that the key would give.

    Raises:
      UserError: neither a key nor noise is given; see :func:`posterior` for the rest.
    """
    noise = _normal(state, key) if noise is None else noise
    mean, sd = posterior(state, **settings)
    return jnp.argmax(mean + sd * noise).astype(jnp.int32)


def choose(
    policy: str,
    state: State,
    key: PRNGKeyArray | None,
    round: Number,
    *,
    noise: Float[Array, " K"] | None = None,
    **settings: Any,
) -> Int[Array, ""]:
    """The arm of a round.

    ``"gaussian"``, ``"dsts"`` and ``"window"`` sample from the posterior of that variant; ``"greedy"`` takes the
    greatest mean of the Gaussian one, the first of equals. These four warm up before. ``"uniform"`` takes turns
    throughout, ``"random"`` draws any arm, ``"fixed"`` pulls one. To pull all arms at once is no choice, and the
    caller's to do.

    Args:
      round: number of the round, from 0.
      noise: as in :func:`sample`.

    Raises:
      UserError: there is no such policy, or ``fixed`` is no arm; see :func:`posterior` for the rest.
    """
    known, arms = _checked(settings), state.n.shape[0]
    if policy not in get_args(Policy):
        raise _unknown("policy", policy, Policy)
    _check("fixed", known.fixed, 0, arms - 1)
    if policy == "fixed":
        return jnp.asarray(known.fixed, jnp.int32)
    turn = jnp.asarray(round, jnp.int32) % arms
    if policy == "uniform":
        return turn
    if policy == "random":
        return jnp.argmax(_normal(state, key) if noise is None else noise).astype(jnp.int32)
    if policy == "greedy":
        mean, _ = posterior(state, **{**settings, "variant": "gaussian"})
        found = jnp.argmax(mean).astype(jnp.int32)
    else:
        found = sample(state, key, noise=noise, **{**settings, "variant": policy})
    return jnp.where(round < known.warmup * arms, turn, found)


def scaled(state: State, reward: Number, *, reward_scale: str | None = "rms", **settings: Any) -> Float[Array, ""]:
    """A reward in units of the root mean square of the last L, itself among them, within ± clip.

    Falls of a loss are hundredths and thousandths, and get smaller; next to a posterior of unit spread they are
    nothing, and arms would be drawn at random. With ``"none"`` a reward is clipped alone, with None not even that.
    What is not finite is 0.

    With the same settings, :func:`update` counts the reward as this. It takes the reward itself, which it remembers for
    the scale.

    Raises:
      UserError: there is no such scale.
    """
    clip, value = _checked({**settings, "reward_scale": reward_scale}).clip, _finite(reward)
    state = _arrays(state)
    if reward_scale is None:
        return value
    if reward_scale == "rms":
        rewards = _with(state, value)
        # Squares of numbers near either end of float32 would be infinite, or 0.
        greatest = jnp.max(jnp.abs(rewards))
        unit = jnp.where(greatest > 0, greatest, 1.0)
        count = jnp.minimum(state.t + 1, len(rewards))
        rms = jnp.sqrt(jnp.sum((rewards / unit) ** 2) / count)
        value = value / unit / jnp.where(greatest > 0, rms, 1.0)
    return jnp.clip(value, -clip, clip)


def reward(before: Number, after: Number, kind: str = "relative", *, eps: float = 1e-12) -> Float[Array, ...]:
    """How much losses fell: before - after, ``"relative"`` as a share of before, which no unit of the loss changes.

    Losses are not negative. What was 0 cannot fall: its share is 0.

    Raises:
      UserError: there is no such kind.
    """
    if kind not in get_args(RewardKind):
        raise _unknown("kind", kind, RewardKind)
    before, after = jnp.asarray(before, jnp.float32), jnp.asarray(after, jnp.float32)
    if kind == "absolute":
        return before - after
    return jnp.where(before > 0, (before - after) / jnp.maximum(before, eps), 0.0)


def _normal(state: State, key: PRNGKeyArray | None) -> Float[Array, " K"]:
    if key is None:
        raise UserError("key is None, but without noise it must be a key of jax.random.")
    return jax.random.normal(key, state.n.shape, jnp.float32)


def _arrays(state: State) -> State:
    """A state that has been on the host holds NumPy's."""
    return State(*map(jnp.asarray, state))


def _finite(reward: Number) -> Float[Array, ""]:
    value = jnp.asarray(reward, jnp.float32)
    return jnp.where(jnp.isfinite(value), value, 0.0)


def _with(state: State, value: Float[Array, ""]) -> Float[Array, " L"]:
    """The last rewards once this one is among them."""
    length = state.seen.shape[0]
    return jnp.where(jnp.arange(length) == state.t % length, value, state.seen)


def _checked(given: dict[str, Any]) -> Settings:
    """All settings; a Python number out of range is refused, what is traced cannot be looked at."""
    settings = Settings(**given)
    _check("gamma", settings.gamma, 0, 1)
    for name in ("sigma", "tau_max", "clip", "warmup"):
        _check(name, getattr(settings, name), 0)
    if isinstance(settings.kappa0, _PYTHON) and not settings.kappa0 > 0:
        raise UserError(f"kappa0 is {settings.kappa0}, but it must be above 0.")
    if settings.variant not in get_args(Variant):
        raise _unknown("variant", settings.variant, Variant)
    if settings.reward_scale is not None and settings.reward_scale not in get_args(RewardScale):
        raise _unknown("reward_scale", settings.reward_scale, RewardScale)
    return settings


def _check(name: str, value: Number, low: int, high: int | None = None) -> None:
    if isinstance(value, _PYTHON) and not (low <= value and (high is None or value <= high)):
        wanted = f"{low} or more" if high is None else f"in [{low}, {high}]"
        raise UserError(f"{name} is {value}, but it must be {wanted}.")


def _unknown(name: str, value: object, known: Any) -> UserError:
    return UserError(f"{name} is {value!r}, but it must be one of {', '.join(get_args(known))}.")
