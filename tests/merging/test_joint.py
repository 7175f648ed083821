"""A shared part and one of each group: the sum of squares never grows, what can be exact is, what can be best is."""

import numpy as np
import pytest

from kind_jax.deploy import components
from kind_jax.merging.joint import common_starts, joint, truncated


def low_rank(rng, shape, rank):
    return rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))


def parts_of(found, group):
    return components.product(found.shared) + components.product(components.row(found.own, group))


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)], ids=str)
@pytest.mark.parametrize("ranks", [(1, 1), (6, 2), (12, 3), (4, 12)], ids=str)
def test_the_sum_of_squares_never_grows_and_is_what_it_says(shape, ranks):
    rng = np.random.default_rng(sum(shape))
    common, counts = rng.standard_normal(shape), np.array([1, 3, 2])
    weights = [common + rng.standard_normal(shape) for _ in counts]
    found = joint(weights, counts, learngenes=ranks[0], tailors=ranks[1], tolerance=0.0)
    drops = -np.diff(found.objective)
    assert np.all(drops >= -1e-12)
    assert len(found.objective) > 3 or found.objective[-1] < 1e-12
    left = np.array([np.linalg.norm(w - parts_of(found, g)) for g, w in enumerate(weights)])
    np.testing.assert_allclose(found.errors, left, atol=1e-4)
    np.testing.assert_allclose(found.norms, [np.linalg.norm(w) for w in weights])
    share = counts / counts.sum()
    np.testing.assert_allclose(share @ left**2 / (share @ found.norms**2), found.objective[-1], atol=1e-6)
    assert np.all(found.apart >= found.errors - 1e-4)


@pytest.mark.parametrize(("learngenes", "tailors"), [(10, 10), (1, 10)])
def test_at_full_rank_nothing_is_lost(learngenes, tailors):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((16, 10)) for _ in range(4)]
    found = joint(weights, np.ones(4, int), learngenes=learngenes, tailors=tailors)
    for group, weight in enumerate(weights):
        np.testing.assert_allclose(parts_of(found, group), weight, atol=1e-5)


def test_two_weights_reach_the_best_there_is():
    """With learngenes of full rank only the difference D counts, of which two groups can hold 2 N_T components."""
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((2, 20, 24))
    whole = np.sum(first**2) + np.sum(second**2)
    spectrum = np.linalg.svd(first - second, compute_uv=False)
    best, from_mean = (0.5 * np.sum(spectrum[n:] ** 2) / whole for n in (8, 4))
    settings = {"learngenes": 20, "tailors": 4, "sweeps": 200, "tolerance": 1e-7}
    ones = np.ones(2, int)
    stuck = joint([first, second], ones, starts={"mean": (first + second) / 2}, **settings)
    np.testing.assert_allclose(stuck.objective[-1], from_mean, rtol=1e-6)
    starts = {"mean": (first + second) / 2, "first": first}
    found = joint([first, second], ones, starts=starts, **settings)
    assert found.start == "first"
    np.testing.assert_allclose(found.objective[-1], best, rtol=1e-3)


def test_a_group_counts_as_often_as_it_has_classes():
    rng = np.random.default_rng(2)
    weights = [rng.standard_normal((8, 9)) for _ in range(2)]
    several = joint([weights[0], weights[1], weights[1]], np.ones(3, int), learngenes=3, tailors=2)
    counted = joint(weights, np.array([1, 2]), learngenes=3, tailors=2)
    np.testing.assert_allclose(counted.objective, several.objective, rtol=1e-9)
    np.testing.assert_allclose(counted.shared.s, several.shared.s, rtol=1e-5)


def test_common_starts_have_the_rank_and_silent_components_have_directions():
    rng = np.random.default_rng(3)
    weights = [low_rank(rng, (9, 11), 2) for _ in range(3)]
    starts = common_starts(weights, np.full(3, 1 / 3), 2)
    assert np.linalg.matrix_rank(starts["spaces"]) == 2
    np.testing.assert_allclose(starts["mean"], sum(weights) / 3)
    np.testing.assert_allclose(truncated(weights[0].T, 2), weights[0].T, atol=1e-10)
    own = joint([weights[0]], np.ones(1, int), learngenes=2, tailors=2).own
    np.testing.assert_allclose(own.s, 0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(own.v[0], axis=1), 1, atol=1e-5)
