"""The bandit by definition: what it remembers, believes, and chooses. Shares of arms: test_bandit_statistics.py."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax.distillation import bandit
from kind_jax.errors import UserError

T, K = 150, 3
RNG = np.random.default_rng(0)
ARMS, REWARDS = RNG.integers(0, K, T), RNG.standard_normal(T).astype(np.float32)
TABLE, NOISE = (RNG.standard_normal((T, K)).astype(np.float32) for _ in range(2))
VARIANTS = ("gaussian", "dsts", "window")


def pulled(arms, rewards, k=K, window=50, **numbers):
    """The state after these rounds, in one program whatever the numbers."""
    return _pulled(k, window, jnp.asarray(arms), jnp.asarray(rewards, jnp.float32), numbers)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _pulled(k, window, arms, rewards, numbers):
    def step(state, given):
        return bandit.update(state, *given, **numbers), None

    return jax.lax.scan(step, bandit.init(k, window=window), (arms, rewards))[0]


@functools.partial(jax.jit, static_argnums=(0,), static_argnames=("reward_scale", "window"))
def played(policy, table, noise=None, **settings):
    """Arms where a policy gets the rewards [T, K] of its own choices."""

    def step(state, given):
        i, key, rewards, noise = given
        arm = bandit.choose(policy, state, key, i, noise=noise, **settings)
        return bandit.update(state, arm, rewards[arm], **settings), arm

    rounds = len(table)
    inputs = jnp.arange(rounds), jax.random.split(jax.random.key(0), rounds), table, noise
    return jax.lax.scan(step, bandit.init(table.shape[1], **settings), inputs)[1]


def test_without_forgetting_it_is_the_textbook_posterior_in_any_order():
    order = RNG.permutation(T)
    for arms, rewards in ((ARMS, REWARDS), (ARMS[order], REWARDS[order])):
        mean, sd = bandit.posterior(pulled(arms, rewards, gamma=1.0))
        pulls = np.bincount(ARMS, minlength=K)
        sums = np.array([REWARDS[i == ARMS].sum(dtype=np.float64) for i in range(K)])
        np.testing.assert_allclose(mean, sums / (pulls + 1), atol=1e-6)
        np.testing.assert_allclose(sd, 1 / np.sqrt(pulls + 1), rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.98, 1.0])
def test_what_is_remembered_are_the_discounted_sums(gamma):
    state = pulled(ARMS, REWARDS, gamma=gamma)
    weights = gamma ** np.arange(T - 1, -1, -1.0)
    hit = ARMS[:, None] == np.arange(K)
    n, s = (weights[:, None] * hit).sum(0), (weights[:, None] * hit * REWARDS[:, None]).sum(0)
    np.testing.assert_allclose(state.n, n, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(state.s, s, atol=1e-5)
    np.testing.assert_allclose(jnp.sum(state.n), T if gamma == 1 else (1 - gamma**T) / (1 - gamma), rtol=1e-5)
    np.testing.assert_array_equal(state.pulls, np.bincount(ARMS))
    mean, sd = bandit.posterior(state, kappa0=2.0, mu0=0.3, sigma=0.7)
    np.testing.assert_allclose(mean, (s + 0.6) / (n + 2), atol=1e-5)
    np.testing.assert_allclose(sd, 0.7 / np.sqrt(n + 2), rtol=1e-5)
    mean, sd = bandit.posterior(state, variant="dsts", tau_max=0.4)
    if gamma > 0:
        np.testing.assert_allclose(mean, s / n, atol=1e-5)
        np.testing.assert_allclose(sd, np.minimum(1 / np.sqrt(n), 0.4), rtol=1e-5)


def test_a_window_sees_the_last_rounds_alone():
    for rounds in (3, 7, 20, T):
        arms, rewards = ARMS[:rounds], REWARDS[:rounds]
        mean, sd = bandit.posterior(pulled(arms, rewards, window=7), variant="window", kappa0=2.0, mu0=0.3)
        n = np.bincount(arms[-7:], minlength=K)
        s = np.bincount(arms[-7:], rewards[-7:], minlength=K)
        np.testing.assert_allclose(mean, (s + 0.6) / (n + 2), atol=1e-6)
        np.testing.assert_allclose(sd, 1 / np.sqrt(n + 2), rtol=1e-6)


def test_with_gamma_0_only_the_last_reward_counts():
    state = pulled([0, 1, 2, 1], [5.0, 6.0, 7.0, 0.25], gamma=0.0)
    mean, sd = bandit.posterior(state)
    np.testing.assert_array_equal(mean, [0, 0.125, 0])
    np.testing.assert_allclose(sd, [1, 0.5**0.5, 1], rtol=1e-6)


def test_an_arm_that_rests():
    """DS-TS keeps its mean to the bit, the conjugate one returns to the prior; deviations grow, within bounds."""
    before = pulled([0, 1, 0, 0], [0.3, 0.1, 0.9, 0.7], k=2)
    last = {variant: bandit.posterior(before, variant=variant, mu0=0.25) for variant in ("gaussian", "dsts")}
    state = before
    for _ in range(20):
        state = bandit.update(state, 1, 0.5)
        for variant, (mean, sd) in last.items():
            now = bandit.posterior(state, variant=variant, mu0=0.25, tau_max=0.9)
            bound = {"gaussian": 1.0, "dsts": 0.9}[variant]
            assert sd[0] < now[1][0] < bound, variant
            if variant == "dsts":
                assert now[0][0] == mean[0]
            else:
                assert 0.25 < now[0][0] < mean[0]
            last[variant] = now
    arms = np.r_[[0, 1, 0, 0], np.ones(6000, int)]
    long = pulled(arms, np.r_[[0.3, 0.1, 0.9, 0.7], np.full(6000, 0.5)], k=2)
    assert long.s[0] == 0, "so that s / n would be 0 / 0"
    mean, sd = bandit.posterior(long, variant="dsts", tau_max=0.9)
    assert mean[0] == last["dsts"][0][0]
    assert sd[0] == np.float32(0.9)
    mean, sd = bandit.posterior(long, mu0=0.25)
    assert (mean[0], sd[0]) == (0.25, 1.0)


def test_before_anything_is_seen():
    state = bandit.init(4)
    for variant, spread in (("gaussian", 2.0), ("window", 2.0), ("dsts", 0.5)):
        mean, sd = bandit.posterior(state, variant=variant, mu0=0.3, kappa0=0.25)
        np.testing.assert_array_equal(mean, np.full(4, np.float32(0.3)))
        np.testing.assert_array_equal(sd, np.full(4, np.float32(spread)))


@pytest.mark.parametrize("policy", [*VARIANTS, "random", "greedy"])
def test_the_same_keys_make_the_same_choices_inside_and_outside(policy):
    """A compiled loop, Python's, and one whose state has been on the host."""
    table = TABLE[:12]
    arms = [int(arm) for arm in played(policy, table, reward_scale="rms")]
    keys = jax.random.split(jax.random.key(0), len(table))
    for keep in (lambda state: state, lambda state: jax.tree.map(np.asarray, state)):
        state, found = bandit.init(K), []
        for i, key in enumerate(keys):
            found.append(int(bandit.choose(policy, state, key, i)))
            state = keep(bandit.update(state, found[-1], float(table[i, found[-1]]), reward_scale="rms"))
        assert found == arms
    arm = bandit.sample(state, keys[0])
    assert (arm.dtype, arm.shape) == (jnp.int32, ())
    assert arm == bandit.sample(state, noise=jax.random.normal(keys[0], (K,)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_units_and_offsets_of_rewards_do_not_matter(variant):
    """Arms permuted with their noise; rewards, sigma, tau_max and mu0 scaled; a constant added to rewards and mu0."""
    base = {"sigma": 1.0, "tau_max": 1.0, "mu0": 0.0, "warmup": 0}
    arms = played(variant, TABLE, NOISE, **base)
    assert len(set(np.asarray(arms[-50:]).tolist())) == K, "a test that can fail"
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(order[played(variant, TABLE[:, order], NOISE[:, order], **base)], arms)
    twice = {**base, "sigma": 4.0, "tau_max": 4.0}
    np.testing.assert_array_equal(played(variant, 4 * TABLE, NOISE, **twice), arms)
    np.testing.assert_array_equal(played(variant, TABLE + 2, NOISE, **{**base, "mu0": 2.0}), arms)
    scaled = played(variant, TABLE, NOISE, **base, reward_scale="rms")
    np.testing.assert_array_equal(played(variant, TABLE / 1024, NOISE, **base, reward_scale="rms"), scaled)


def test_a_single_arm():
    state = bandit.update(bandit.init(1), 0, -1.0)
    for policy in (*VARIANTS, "uniform", "random", "greedy", "fixed"):
        assert bandit.choose(policy, state, jax.random.key(0), 1) == 0


def test_policies():
    def arms(policy, rounds, state, **settings):
        keys = jax.random.split(jax.random.key(0), rounds)
        return np.array([bandit.choose(policy, state, keys[i], i, **settings) for i in range(rounds)])

    fresh, told = bandit.init(K), bandit.update(bandit.init(K), 1, 100.0)
    turns = np.arange(2 * K) % K
    np.testing.assert_array_equal(arms("uniform", 2 * K, told), turns)
    np.testing.assert_array_equal(arms("fixed", 2, told, fixed=2), [2, 2])
    assert set(arms("random", 20, told)) == set(range(K))
    for policy in (*VARIANTS, "greedy"):
        np.testing.assert_array_equal(arms(policy, 2 * K + 1, told, warmup=2), [*turns, 1])
    assert arms("greedy", 1, fresh, warmup=0) == 0, "of equals the first"


@pytest.mark.parametrize("count", [1, 5, 20, 33])
def test_rewards_in_units_of_their_size(count):
    rewards = REWARDS[:count] * 1e-3
    state = pulled(np.zeros(count - 1, int), rewards[:-1])
    rms = np.sqrt(np.mean(rewards[-20:].astype(np.float64) ** 2))
    found = bandit.scaled(state, rewards[-1])
    np.testing.assert_allclose(found, np.clip(rewards[-1] / rms, -3, 3), rtol=1e-5)
    assert bandit.update(state, 0, rewards[-1], gamma=0.0, reward_scale="rms").s[0] == found


def test_scaled_rewards_are_bounded_and_finite():
    quiet = pulled(np.zeros(30, int), np.full(30, 0.01))
    assert bandit.scaled(quiet, 5.0) == 3
    assert bandit.scaled(quiet, -5.0) == -3
    assert bandit.scaled(quiet, -5.0, clip=2.0) == -2
    assert bandit.scaled(quiet, 5.0, reward_scale="none") == 3
    assert bandit.scaled(quiet, 0.5, reward_scale="none") == 0.5
    assert bandit.scaled(quiet, 5.0, reward_scale=None) == 5
    assert bandit.scaled(bandit.init(K), 0.0) == 0
    for size in (1e-37, 1e-30, 1e30):
        np.testing.assert_allclose(bandit.scaled(bandit.init(K), size), 1, rtol=1e-6)
    for strange in (np.nan, np.inf, -np.inf):
        assert bandit.scaled(quiet, strange) == 0
        for scale in (None, "rms", "none"):
            found, wanted = (bandit.update(quiet, 1, r, reward_scale=scale) for r in (strange, 0.0))
            chex.assert_trees_all_equal(found, wanted)


def test_reward_of_a_round():
    before, after = np.float32([2.0, 1.5, 0.7]), np.float32([1.0, 1.6, 0.7])
    np.testing.assert_allclose(bandit.reward(before, after), [0.5, -1 / 15, 0], rtol=1e-5)
    np.testing.assert_allclose(bandit.reward(before, after, "absolute"), [1, -0.1, 0], rtol=1e-5)
    np.testing.assert_array_equal(bandit.reward(4 * before, 4 * after), bandit.reward(before, after))
    for kind in ("relative", "absolute"):
        assert bandit.reward(0.3, 0.3, kind) == 0
        assert bandit.reward(0.0, 0.0, kind) == 0
    assert bandit.reward(0.0, 1.0) == 0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: bandit.init(0), "arms is 0, but it must be a whole number from 1."),
        (lambda: bandit.init(2.5), "arms is 2.5, but"),
        (lambda: bandit.init(3, window=0), "window is 0, but"),
        (lambda: bandit.init(3, gamma=1.5), r"gamma is 1.5, but it must be in \[0, 1\]."),
        (lambda: bandit.update(bandit.init(3), 0, 1.0, gamma=-0.1), "gamma is -0.1, but"),
        (lambda: bandit.update(bandit.init(3), 0, 1.0, gamma=float("nan")), "gamma is nan, but"),
        (lambda: bandit.update(bandit.init(3), 3, 1.0), r"arm is 3, but it must be in \[0, 2\]."),
        (lambda: bandit.update(bandit.init(3), 0, 1.0, reward_scale="std"), "reward_scale is 'std', but .* rms, none"),
        (lambda: bandit.posterior(bandit.init(3), kappa0=0), "kappa0 is 0, but it must be above 0."),
        (lambda: bandit.posterior(bandit.init(3), sigma=-1.0), "sigma is -1.0, but it must be 0 or more."),
        (lambda: bandit.posterior(bandit.init(3), variant="beta"), "variant is 'beta', but .* gaussian, dsts, window"),
        (lambda: bandit.sample(bandit.init(3)), "key is None, but"),
        (lambda: bandit.choose("all", bandit.init(3), jax.random.key(0), 0), "policy is 'all', but"),
        (lambda: bandit.choose("fixed", bandit.init(3), jax.random.key(0), 0, fixed=3), "fixed is 3, but"),
        (lambda: bandit.reward(1.0, 0.5, "ratio"), "kind is 'ratio', but"),
    ],
)
def test_impossible_settings_are_refused(call, text):
    with pytest.raises(UserError, match=text):
        call()
