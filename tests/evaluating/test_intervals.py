"""Intervals against tables, leave-one-out, and the spread of draws repeated."""

import numpy as np
import pytest

from kind_jax.evaluating import intervals
from kind_jax.evaluating.frechet import frechet_distance, gaussian_fit
from kind_jax.evaluating.metrics import Score
from kind_jax.evaluating.moments import Gaussian
from kind_jax.evaluating.neighbours import precision_recall, recall

DIMS, COUNT = 5, 200


def gaussian(rows):
    mean, cov = gaussian_fit(rows)
    return Gaussian(mean=mean, cov=cov)


def distance(a, b):
    return frechet_distance(a.mean, a.cov, b.mean, b.cov)


def half(interval):
    return (interval[1] - interval[0]) / 2


def draws(repeats):
    rng = np.random.default_rng(0)
    mix = np.eye(DIMS) + rng.normal(size=(DIMS, DIMS)) / 3
    return [rng.normal(size=(COUNT, DIMS)) @ mix + 0.3 for _ in range(repeats)]


REFERENCE = np.random.default_rng(1).normal(size=(400, DIMS))


def test_wilson():
    assert intervals.wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert intervals.wilson(0, 10) == pytest.approx((0, 0.2775328), abs=1e-6)
    assert intervals.wilson(10, 10) == pytest.approx((0.7224672, 1), abs=1e-6)
    assert intervals.wilson(0, 10)[0] == 0
    assert intervals.wilson(10, 10)[1] == 1
    # Two seeds of one model, 97.4 % and 99.2 % of 500: the interval of each reaches the other's.
    assert intervals.wilson(487, 500)[1] > intervals.wilson(496, 500)[0]


def test_effects_on_the_distance_are_those_of_leaving_an_image_out():
    rows, real = draws(1)[0], gaussian(REFERENCE)
    effects = intervals.frechet_effects(rows, gaussian(rows), real)
    whole = distance(gaussian(rows), real)
    left = np.array([whole - distance(gaussian(np.delete(rows, i, axis=0)), real) for i in range(COUNT)])
    np.testing.assert_allclose((COUNT - 1) * (left - left.mean()), effects - effects.mean(), atol=0.15 * effects.std())


def test_the_interval_of_a_distance_is_as_wide_as_the_spread_of_draws():
    real = gaussian(REFERENCE)
    found, errors = [], []
    for rows in draws(300):
        fit = gaussian(rows)
        found.append(distance(fit, real))
        errors.append(half(intervals.of_mean(found[-1], intervals.frechet_effects(rows, fit, real), COUNT)) / 1.96)
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.15)
    covered = np.mean(np.abs(np.array(found) - np.mean(found)) < 1.96 * np.array(errors))
    assert 0.9 < covered < 0.99
    # Some of the images tell as much, and the same images again say nothing new about an interval.
    rows = draws(1)[0]
    effects = intervals.frechet_effects(rows, gaussian(rows), real)
    assert half(intervals.of_mean(9.0, effects[:100], COUNT)) == pytest.approx(
        half(intervals.of_mean(9.0, effects, COUNT)), rel=0.3
    )
    assert intervals.of_mean(0.0, effects, COUNT)[0] == 0


def test_the_interval_of_a_score_is_as_wide_as_the_spread_of_draws():
    rng = np.random.default_rng(0)
    found, errors = [], []
    for _ in range(300):
        score = Score(100)  # three splits
        score.add(rng.dirichlet(np.full(4, 0.3), 300).astype(np.float32))
        value, interval = score.measured()
        assert value == score.value()
        found.append(value)
        errors.append(half(interval) / 1.96)
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.15)


def test_the_interval_of_recall_covers_other_draws():
    found, widths = [], []
    for rows in draws(12):
        found.append(precision_recall(REFERENCE, rows)[1])
        assert recall(REFERENCE, rows) == found[-1]
        low, high = intervals.jackknife(found[-1], lambda some: recall(REFERENCE, some), rows)
        assert 0 <= low < found[-1] < high <= 1
        widths.append((high - low) / 2)
    middle = np.mean(found)
    assert np.mean(np.abs(np.array(found) - middle) < widths) > 0.8
    assert np.mean(widths) < 8 * np.std(found)
    assert intervals.jackknife(0.5, lambda some: 0.5, REFERENCE[:10]) == (0, 1)
