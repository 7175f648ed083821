import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax.config import DiffusionConfig, SamplerConfig
from kind_jax.diffusion.process import make_process
from kind_jax.diffusion.sampler import make_sampler, sample
from kind_jax.errors import UserError

FLOW = DiffusionConfig(process="flow")
MEAN, STD = 0.3, 0.2
SHAPE = (4, 16, 16, 3)


def _normal(seed):
    return jax.random.normal(jax.random.key(seed), SHAPE)


def _exact_velocity(x, time):
    """E[noise - clean | x] where every pixel is N(MEAN, STD^2)."""
    t = (time / 1000)[:, None, None, None]
    standard = (x - (1 - t) * MEAN) / ((1 - t) ** 2 * STD**2 + t**2)
    return t * standard - (MEAN + (1 - t) * STD**2 * standard)


def _sample(method, steps, denoise=_exact_velocity):
    sampler = make_sampler(FLOW, SamplerConfig(method=method, steps=steps), learn_sigma=False)
    assert sampler.steps == steps
    return jax.jit(lambda start, key: sample(sampler, denoise, start, key))(_normal(0), jax.random.key(1))


def _error(method, steps):
    # The exact path is linear in the start z and ends at MEAN + STD * z.
    return np.sqrt(np.mean((_sample(method, steps) - (MEAN + STD * _normal(0))) ** 2))


def test_the_line_starts_at_data_and_its_slope_is_the_target():
    process = make_process(FLOW, learn_sigma=False)
    clean, noise, t = _normal(0), _normal(1), jnp.array([0.1, 0.25, 0.5, 0.9])
    np.testing.assert_array_equal(process.corrupt(clean, noise, jnp.zeros(4)), clean)
    np.testing.assert_array_equal(process.corrupt(clean, noise, jnp.ones(4)), noise)
    x, slope = jax.jvp(lambda t: process.corrupt(clean, noise, t), (t,), (jnp.ones(4),))
    np.testing.assert_allclose(x[1], 0.75 * clean[1] + 0.25 * noise[1], atol=1e-6)
    np.testing.assert_allclose(process.losses(slope, clean, noise, t)["loss"], 0, atol=1e-10)
    off = jnp.array([0.0, 1.0, 2.0, 3.0])
    losses = process.losses(slope + off[:, None, None, None], clean, noise, t)
    assert set(losses) == {"loss", "mse"}
    np.testing.assert_allclose(losses["loss"], off**2, rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(process.model_time(t), [100, 250, 500, 900])


@pytest.mark.parametrize("times", ["uniform", "logit_normal"])
def test_times_have_the_right_distribution(times):
    process = make_process(DiffusionConfig(process="flow", times=times), learn_sigma=False)
    t = np.asarray(process.draw_times(jax.random.key(0), 20_000))
    assert t.dtype == np.float32
    assert 0 < t.min() < t.max() < 1
    # Either way a transform of the times is known: the times themselves, or their logit.
    values, mean, std = (t, 0.5, 12**-0.5) if times == "uniform" else (np.log(t / (1 - t)), 0.0, 1.0)
    assert values.mean() == pytest.approx(mean, abs=4 * std / 20_000**0.5)
    assert values.std() == pytest.approx(std, rel=0.02)


def test_samples_have_the_moments_of_the_data():
    got = np.asarray(_sample("heun", 40))
    start = np.asarray(_normal(0))
    assert got.mean() == pytest.approx(MEAN + STD * start.mean(), abs=0.002)
    assert got.std() == pytest.approx(STD * start.std(), rel=0.01)


def test_heun_is_of_second_order_and_euler_of_first():
    euler, heun = ([_error(method, n) for n in (20, 40)] for method in ("euler", "heun"))
    assert 1.7 < euler[0] / euler[1] < 2.4
    assert heun[0] / heun[1] > 3.2
    assert heun[0] < euler[1] / 2  # at the same number of model evaluations


@pytest.mark.parametrize(("method", "evaluations"), [("euler", 5), ("heun", 9)])
def test_no_model_evaluation_is_wasted(method, evaluations):
    times = []

    def counted(x, time):
        jax.debug.callback(lambda t: times.append(float(t)), time[0])
        return _exact_velocity(x, time)

    _sample(method, 5, counted).block_until_ready()
    jax.effects_barrier()
    assert len(times) == evaluations
    np.testing.assert_allclose(sorted(set(times)), [200, 400, 600, 800, 1000], rtol=1e-6)


def test_a_low_precision_model_keeps_the_state_in_float32():
    for method in ("euler", "heun"):
        assert _sample(method, 2, lambda x, t: _exact_velocity(x, t).astype(jnp.bfloat16)).dtype == jnp.float32


CLEAN = DiffusionConfig(process="flow", prediction="clean")


def test_a_flow_that_outputs_the_image_has_the_same_loss_and_path_as_its_velocity():
    velocity, image = make_process(FLOW, learn_sigma=False), make_process(CLEAN, learn_sigma=False)
    clean, noise, off, t = _normal(0), _normal(1), _normal(2), jnp.array([0.06, 0.25, 0.5, 0.9])
    x, times = velocity.corrupt(clean, noise, t), t[:, None, None, None]
    # An image that is off by t times something is a velocity that is off by minus that.
    losses = velocity.losses(noise - clean - off, clean, noise, t), image.losses(clean + times * off, clean, noise, t)
    np.testing.assert_allclose(losses[1]["loss"], losses[0]["loss"], rtol=1e-5)
    np.testing.assert_allclose((x - (clean + times * off)) / times, noise - clean - off, atol=2e-5)
    # Below the least time the weight stays.
    small = image.losses(clean + 0.05 * off, clean, noise, jnp.full(4, 0.001))
    np.testing.assert_allclose(small["loss"], losses[0]["loss"], rtol=1e-5)

    def exact_image(x, time):
        return x - (time / 1000)[:, None, None, None] * _exact_velocity(x, time)

    for method, steps in (("euler", 20), ("heun", 10)):
        sampler = make_sampler(CLEAN, SamplerConfig(method=method, steps=steps), learn_sigma=False)
        found = sample(sampler, exact_image, _normal(0), jax.random.key(1))
        np.testing.assert_allclose(found, _sample(method, steps), atol=1e-5)
    with pytest.raises(UserError, match=r"diffusion.prediction is 'clean', but it must be 'epsilon' or 'v'"):
        DiffusionConfig(process="gaussian", prediction="clean")
