import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_dit import fixture, forward, images

from kind_jax.config import DiffusionConfig, SamplerConfig
from kind_jax.diffusion.gaussian import make_gaussian
from kind_jax.diffusion.sampler import make_sampler, sample
from kind_jax.errors import UserError

MEAN, STD = 0.3, 0.5


def _normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


def _exact(config):
    """The best possible output where every pixel is N(MEAN, STD^2)."""
    alpha_bar_table = jnp.asarray(np.cumprod(1 - make_gaussian(config, learn_sigma=False).betas), jnp.float32)

    def denoise(x, time):
        alpha_bar = alpha_bar_table[jnp.round(time * config.train_steps / 1000).astype(int)][:, None, None, None]
        signal, sigma = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
        standard = (x - signal * MEAN) / (alpha_bar * STD**2 + 1 - alpha_bar)
        clean, noise = MEAN + signal * STD**2 * standard, sigma * standard
        return noise if config.prediction == "epsilon" else signal * noise - sigma * clean

    return denoise


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_traces_are_the_recorded_ones(method):
    labels = fixture()[f"sample/{method}/y"]
    sampler = make_sampler(DiffusionConfig(), SamplerConfig(method=method, steps=10), learn_sigma=True)
    noises, trace = images(f"sample/{method}/noises_in_call_order"), images(f"sample/{method}/trace")

    @jax.jit
    def step(x, i, noise):
        return sampler.step(lambda x, t: forward(x, t, labels), x, i, noise)

    x = images(f"sample/{method}/x_T")
    for i in range(sampler.steps):
        x = step(x, jnp.int32(i), noises[i])
        # The untrained model blows x up to several hundred, so the error is measured against that.
        np.testing.assert_allclose(x, trace[i], rtol=1e-5, atol=3e-6 * np.abs(trace[i]).max())


def test_sampling_is_the_steps_with_noise_folded_from_the_key():
    config = DiffusionConfig(train_steps=100)
    sampler = make_sampler(config, SamplerConfig(method="ddpm", steps=7), learn_sigma=False)
    denoise, key = _exact(config), jax.random.key(5)
    start = _normal(0, (2, 4, 4, 3))
    step = jax.jit(lambda x, i, noise: sampler.step(denoise, x, i, noise))
    x = start
    for i in range(7):
        x = step(x, jnp.int32(i), jax.random.normal(jax.random.fold_in(key, i), x.shape))
    run = jax.jit(lambda start, key: sample(sampler, denoise, start, key))
    got = run(start, key)
    np.testing.assert_allclose(got, x, rtol=1e-5, atol=1e-6)
    assert np.abs(run(start, jax.random.key(6)) - got).max() > 0.1


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_ddpm_with_fixed_variance_samples_the_data(schedule, prediction):
    config = DiffusionConfig(schedule=schedule, prediction=prediction)
    sampler = make_sampler(config, SamplerConfig(method="ddpm", steps=250), learn_sigma=False)
    run = jax.jit(lambda start, key: sample(sampler, _exact(config), start, key))
    got = np.asarray(run(_normal(0, (16, 16, 16, 4)), jax.random.key(1)))
    assert got.mean() == pytest.approx(MEAN, abs=0.02)
    assert got.std() == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_ddim_follows_the_exact_path(schedule, prediction):
    # The probability flow of Gaussian data is linear: noise z ends at MEAN + STD * z.
    config = DiffusionConfig(schedule=schedule, prediction=prediction)
    start = _normal(0, (2, 8, 8, 3))

    def error(steps):
        sampler = make_sampler(config, SamplerConfig(method="ddim", steps=steps), learn_sigma=False)
        got = jax.jit(lambda start, key: sample(sampler, _exact(config), start, key))(start, jax.random.key(1))
        return np.abs(got - (MEAN + STD * start)).max()

    assert error(200) < 0.04
    assert error(200) < 0.4 * error(50)


def test_ddim_with_eta_one_is_ddpm_with_the_posterior_variance():
    config = DiffusionConfig(prediction="v")
    denoise = _exact(config)

    def smallest_variance(x, t):
        return jnp.concatenate([denoise(x, t), -jnp.ones_like(x)], axis=-1)

    results = []
    for sampler_config in (SamplerConfig(method="ddpm", steps=20), SamplerConfig(method="ddim", steps=20, eta=1.0)):
        sampler = make_sampler(config, sampler_config, learn_sigma=True)
        run = jax.jit(lambda start, key, s=sampler: sample(s, smallest_variance, start, key))
        results.append(run(_normal(0, (2, 8, 8, 3)), jax.random.key(1)))
    np.testing.assert_allclose(*results, atol=1e-5)


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_how_much_noise_a_step_adds(method):
    config = DiffusionConfig()
    sampler = make_sampler(config, SamplerConfig(method=method, steps=10, eta=0.5), learn_sigma=False)
    x, noise = _normal(0, (2, 4, 4, 3)), _normal(1, (2, 4, 4, 3))
    betas = make_gaussian(config, learn_sigma=False, steps=10).betas
    alpha_bar = np.cumprod(1 - betas)
    step = jax.jit(lambda i, noise: sampler.step(_exact(config), x, i, noise))
    for i in range(10):
        t = 9 - i
        if t == 0:
            want = 0.0
        elif method == "ddpm":
            want = np.sqrt(betas[t])
        else:
            want = 0.5 * np.sqrt(betas[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]))
        added = step(jnp.int32(i), noise) - step(jnp.int32(i), jnp.zeros_like(noise))
        np.testing.assert_allclose(added, want * noise, atol=1e-5)


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_one_step_goes_from_noise_to_the_predicted_image(method):
    config = DiffusionConfig(prediction="v")
    sampler = make_sampler(config, SamplerConfig(method=method, steps=1, eta=0.5), learn_sigma=True)
    start = _normal(0, (2, 4, 4, 3))

    def denoise(x, time):
        np.testing.assert_allclose(time, 999)
        return jnp.concatenate([_exact(config)(x, time), x], axis=-1)

    got = sampler.step(denoise, start, jnp.int32(0), _normal(1, start.shape))
    np.testing.assert_allclose(got, np.full(start.shape, MEAN), atol=0.02)


def test_a_low_precision_model_keeps_the_state_in_float32():
    config = DiffusionConfig(train_steps=100)
    start = _normal(0, (1, 4, 4, 3))
    for method in ("ddpm", "ddim"):
        sampler = make_sampler(config, SamplerConfig(method=method, steps=3), learn_sigma=False)
        got = sample(sampler, lambda x, t: _exact(config)(x, t).astype(jnp.bfloat16), start, jax.random.key(0))
        assert got.dtype == jnp.float32


@pytest.mark.parametrize(
    ("diffusion", "sampler", "learn_sigma", "message"),
    [
        (DiffusionConfig(), SamplerConfig(method="heun"), True, r"sampler\.method is 'heun'.*'ddpm' or 'ddim'"),
        (DiffusionConfig(process="flow"), SamplerConfig(), False, r"sampler\.method is 'ddpm'.*'euler' or 'heun'"),
        (DiffusionConfig(process="flow"), SamplerConfig(method="euler"), True, r"model\.learn_sigma is True"),
        (DiffusionConfig(train_steps=100), SamplerConfig(steps=101), True, r"sampler\.steps is 101"),
    ],
)
def test_impossible_samplers_are_refused(diffusion, sampler, learn_sigma, message):
    with pytest.raises(UserError, match=message):
        make_sampler(diffusion, sampler, learn_sigma)
