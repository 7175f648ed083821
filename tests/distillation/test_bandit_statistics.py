"""What share of rounds the bandit gives to which arm: 3 arms, 30 seeds, 2000 rounds, rewards of deviation 0.1."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "studies" / "bandit_worlds.py"
MEANS, ROUNDS, SEEDS = (0.2, 0.5, 0.8), 2000, 30


@pytest.fixture(scope="module")
def worlds():
    spec = importlib.util.spec_from_file_location("studies_bandit_worlds", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def share(arms, best, rounds):
    return float(np.mean(np.asarray(arms)[:, slice(*rounds)] == best))


@pytest.mark.parametrize(
    ("policy", "settings", "expected"),
    [
        ("gaussian", {"gamma": 1.0}, 0.988),
        ("gaussian", {"gamma": 0.99}, 0.82),
        ("gaussian", {"gamma": 0.98}, 0.75),
        ("gaussian", {"gamma": 0.9}, 0.57),
        # Arms that have never been pulled are believed to give 0, and some never are: 0.877 once all have been.
        ("dsts", {"tau_max": 0.2, "warmup": 0}, 0.91),
        ("dsts", {"tau_max": 0.2, "warmup": 1}, 0.88),
        ("dsts", {"tau_max": 1.0, "warmup": 0}, 0.71),
        ("window", {}, 0.75),  # 50 rounds are as much as gamma 0.98 remembers
        ("uniform", {}, 1 / 3),
        ("random", {}, 1 / 3),
    ],
)
def test_share_of_the_best_arm_in_the_end(worlds, policy, settings, expected):
    arms, _ = worlds.play(policy, worlds.steady(MEANS, ROUNDS), seeds=SEEDS, **settings)
    assert share(arms, 2, (1500, 2000)) == pytest.approx(expected, abs=0.01 if settings.get("gamma") == 1 else 0.03)


@pytest.mark.parametrize(("gamma", "expected"), [(1.0, 0.13), (0.99, 0.81), (0.98, 0.75), (0.95, 0.64)])
def test_share_of_the_new_best_arm_after_a_swap(worlds, gamma, expected):
    """Who forgets notices; who does not, stays."""
    arms, _ = worlds.play("gaussian", worlds.swapped(MEANS, ROUNDS, 1000), seeds=SEEDS, gamma=gamma)
    assert share(arms, 0, (1200, 1500)) == pytest.approx(expected, abs=0.05)


def test_equal_arms_get_equal_shares(worlds):
    arms, _ = worlds.play("gaussian", np.full((ROUNDS, 3), 0.5), seeds=SEEDS)
    for arm in range(3):
        assert share(arms, arm, (0, ROUNDS)) == pytest.approx(1 / 3, abs=0.01)


def test_small_rewards_need_a_scale(worlds):
    """Next to a posterior of unit spread, thousandths are no difference."""
    means = worlds.steady((0.002, 0.005, 0.008), ROUNDS)
    settings = {"plain": {"sigma": 1.0}, "sigma": {"sigma": 0.002}, "rms": {"reward_scale": "rms"}}
    found = {
        name: share(worlds.play("gaussian", means, seeds=SEEDS, noise=0.001, **given)[0], 2, (0, ROUNDS))
        for name, given in settings.items()
    }
    assert found["plain"] == pytest.approx(1 / 3, abs=0.02)
    assert found["sigma"] > 0.99
    assert found["rms"] > 0.75


def test_distillation_in_three_numbers(worlds):
    """Losses that a pull multiplies by 0.97, 0.9 or 0.99: sampling beats taking turns, and that drawing at random."""
    given = {"factors": (0.97, 0.9, 0.99), "rounds": 120}
    total = {
        policy: np.asarray(worlds.distil(policy, seeds=200, gamma=0.9, reward_scale="rms", **given)[1])[:, -1]
        for policy in ("gaussian", "uniform", "random")
    }
    factors = np.array(given["factors"])
    np.testing.assert_allclose(total["uniform"], np.sum(factors**40), rtol=1e-5)  # 0.979
    expected = np.sum((1 - (1 - factors) / 3) ** 120)  # each round picks each arm with probability 1/3
    assert total["random"].mean() == pytest.approx(expected, abs=0.01)
    losses = np.ones(3)
    for _ in range(given["rounds"]):
        best = np.argmax(losses * (1 - factors))
        losses[best] *= factors[best]
    assert losses.sum() == pytest.approx(0.925, abs=5e-4)
    means = {policy: values.mean() for policy, values in total.items()}
    assert losses.sum() < means["gaussian"] < means["uniform"] < means["random"]
    assert means["gaussian"] == pytest.approx(0.955, abs=0.01)
    assert np.mean(total["gaussian"] < total["uniform"]) > 0.9
