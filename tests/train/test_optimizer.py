"""The learning rate over a run."""

import math

import pytest

from kind_jax.config import OptimizerConfig
from kind_jax.errors import UserError
from kind_jax.train.optimizer import learning_rate


def rates(steps, at, **settings):
    schedule = learning_rate(OptimizerConfig(learning_rate=2.0, **settings), steps)
    return [float(schedule(step)) for step in at]


def test_the_rate_rises_and_falls_between_its_bounds():
    assert rates(10, (0, 9), schedule="constant") == [2, 2]
    assert rates(10, (0, 2, 4, 9), warmup=4) == [0, 1, 2, 2]
    assert rates(10, (0, 2, 4), warmup=4, warmup_start=0.5) == [1, 1.5, 2]
    found = rates(12, (2, 7, 12, 20), schedule="cosine", warmup=2, minimum=0.1)
    assert found == pytest.approx([2, 0.2 + 1.8 * (1 + math.cos(math.pi / 2)) / 2, 0.2, 0.2])
    assert rates(12, (12,), schedule="cosine", warmup=2) == pytest.approx([0], abs=1e-7)


@pytest.mark.parametrize(
    "settings", [{"minimum": 0.1}, {"warmup_start": 0.1}, {"warmup": 2, "warmup_start": -1.0}, {"minimum": 2.0}]
)
def test_bounds_that_nothing_would_use_are_refused(settings):
    with pytest.raises(UserError, match=rf"optimizer\.{list(settings)[-1]} is"):
        OptimizerConfig(**settings)
