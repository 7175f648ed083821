import math

import numpy as np
import pytest
from reference_dit import fixture

from kind_jax.diffusion.schedule import cosine_betas, linear_betas, make_betas, respace_betas, space_timesteps
from kind_jax.errors import UserError


def test_linear_schedule_is_the_recorded_one():
    betas = linear_betas(1000)
    np.testing.assert_allclose(betas, fixture()["diffusion/betas"], rtol=0, atol=1e-15)
    np.testing.assert_allclose(np.cumprod(1 - betas), fixture()["diffusion/alphas_cumprod"], rtol=1e-13)


def test_linear_schedule_destroys_the_data_equally_at_any_length():
    assert np.log(np.prod(1 - linear_betas(4000))) == pytest.approx(np.log(np.prod(1 - linear_betas(1000))), rel=0.01)
    with pytest.raises(UserError, match=r"diffusion\.train_steps is 20"):
        linear_betas(20)


def test_cosine_schedule_follows_its_formula():
    steps = 1000
    alpha_bar = np.cumprod(1 - cosine_betas(steps))

    def f(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    want = [f((t + 1) / steps) / f(0) for t in range(steps - 1)]  # the last entry is where the cap on beta acts
    np.testing.assert_allclose(alpha_bar[:-1], want, rtol=1e-9)
    assert alpha_bar[0] > 0.9999
    assert 0 < alpha_bar[-1] < 1e-8
    assert np.all(np.diff(alpha_bar) < 0)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("count", [1, 2, 10, 250, 1000])
def test_respacing_keeps_alpha_bar_at_the_times_it_keeps(schedule, count):
    betas = make_betas(schedule, 1000)
    kept = space_timesteps(1000, count)
    assert len(kept) == count
    assert kept[-1] == 999
    respaced = respace_betas(betas, kept)
    assert np.all((respaced > 0) & (respaced < 1))
    # Through 1 - beta, which loses digits where beta is close to 1.
    np.testing.assert_allclose(np.cumprod(1 - respaced), np.cumprod(1 - betas)[kept], rtol=1e-6)


def test_respaced_times():
    np.testing.assert_array_equal(space_timesteps(1000, 10), fixture()["sample/ddpm/timesteps"])
    np.testing.assert_array_equal(space_timesteps(1000, 1000), np.arange(1000))
    # Halves: even neighbours win, unless the running sum has drifted to one side, as it has in ADM.
    np.testing.assert_array_equal(space_timesteps(1000, 3), [0, 500, 999])
    assert space_timesteps(1000, 21)[10] == 499
    with pytest.raises(UserError, match=r"sampler\.steps is 11, but it must be at most diffusion\.train_steps"):
        space_timesteps(10, 11)
