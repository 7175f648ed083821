import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_dit import fixture, forward, images

from kind_jax.config import DiffusionConfig
from kind_jax.diffusion.gaussian import make_gaussian
from kind_jax.diffusion.process import make_process
from kind_jax.errors import UserError

SHAPE = (4, 8, 8, 3)


def _normal(seed, shape=SHAPE):
    return jax.random.normal(jax.random.key(seed), shape)


def test_corruption_and_losses_are_the_recorded_ones():
    recorded = fixture()
    clean, noise = images("forward/x_nchw"), images("diffusion/q_sample_noise")
    t = jnp.asarray(recorded["diffusion/q_sample_t"], jnp.int32)
    process = make_process(DiffusionConfig(), learn_sigma=True)

    @jax.jit
    def run(clean, noise, t):
        x = process.corrupt(clean, noise, t)
        output = forward(x, process.model_time(t), recorded["diffusion/training_losses/y"])
        return x, process.losses(output, clean, noise, t)

    x, losses = run(clean, noise, t)
    np.testing.assert_allclose(x, images("diffusion/q_sample_out"), atol=1e-6)
    assert set(losses) == {"loss", "mse", "vb"}
    for name, value in losses.items():
        np.testing.assert_allclose(value, recorded[f"diffusion/training_losses/{name}"], rtol=1e-5)


def test_bound_at_time_zero_is_the_likelihood_of_the_pixel_levels():
    process = make_gaussian(DiffusionConfig(), learn_sigma=True)
    levels = np.random.default_rng(0).choice([0, 1, 100, 200, 255], SHAPE)
    clean = (levels / 127.5 - 1).astype(np.float32)
    # Predictions off by about one standard deviation, variances over the whole range.
    predicted = np.asarray(_normal(1)) + np.asarray(_normal(2))
    share = np.random.default_rng(1).uniform(0, 1, SHAPE)
    output = jnp.concatenate([jnp.asarray(predicted), jnp.asarray(2 * share - 1, jnp.float32)], axis=-1)
    t = jnp.zeros(4, jnp.int32)
    found = jax.jit(process.losses)(output, jnp.asarray(clean), _normal(1), t)["vb"]

    beta, beta_1 = process.betas[0], process.betas[1]
    smallest = beta_1 * beta / (1 - (1 - beta) * (1 - beta_1))
    scale = np.sqrt(beta**share * smallest ** (1 - share))
    mean = clean.astype(np.float64) + math.sqrt(beta / (1 - beta)) * (np.asarray(_normal(1)) - predicted)
    cdf = np.vectorize(lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2))))
    upper = np.where(levels == 255, 1, cdf((clean + 1 / 255 - mean) / scale))
    lower = np.where(levels == 0, 0, cdf((clean - 1 / 255 - mean) / scale))
    want = -np.log2(np.maximum(upper - lower, 1e-12)).mean(axis=(1, 2, 3))
    # The package uses ADM's tanh approximation of the normal distribution, good to about 3e-4.
    np.testing.assert_allclose(found, want, rtol=1e-2)


def test_bound_trains_only_the_variance():
    process = make_gaussian(DiffusionConfig(), learn_sigma=True)
    t = jnp.array([0, 1, 500, 999])
    output = _normal(0, (4, 8, 8, 6))

    @jax.jit
    def gradients(output):
        _, pull = jax.vjp(lambda o: process.losses(o, _normal(1), _normal(2), t), output)
        one, zero = jnp.ones(4), jnp.zeros(4)
        return [pull({"loss": zero, "mse": zero, "vb": zero} | {part: one})[0] for part in ("vb", "mse")]

    vb, mse = gradients(output)
    assert np.all(np.asarray(vb[..., :3]) == 0)
    assert np.all(np.isfinite(vb))
    assert np.all(np.asarray(vb[..., 3:]).any(axis=(1, 2, 3)))
    assert np.all(np.asarray(mse[..., 3:]) == 0)
    assert np.all(np.asarray(mse[..., :3]) != 0)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_v_and_epsilon_describe_the_same_prediction(schedule):
    epsilon = make_gaussian(DiffusionConfig(schedule=schedule, prediction="epsilon"), learn_sigma=True)
    v = make_gaussian(DiffusionConfig(schedule=schedule, prediction="v"), learn_sigma=True)
    t = jnp.array([0, 10, 500, 900])
    clean, noise, guess, variance = (_normal(seed) for seed in range(4))
    x = v.corrupt(clean, noise, t)
    alpha_bar = np.cumprod(1 - v.betas)[np.asarray(t)][:, None, None, None]
    signal, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    implied_clean = (np.asarray(x, np.float64) - sigma * guess) / signal
    as_v = jnp.asarray(signal * guess - sigma * implied_clean, jnp.float32)

    for got, want in zip(v.clean_and_noise(as_v, x, t), (implied_clean, guess), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    a = jax.jit(epsilon.losses)(jnp.concatenate([guess, variance], axis=-1), clean, noise, t)
    b = jax.jit(v.losses)(jnp.concatenate([as_v, variance], axis=-1), clean, noise, t)
    np.testing.assert_allclose(a["vb"], b["vb"], rtol=2e-4)
    # An error of v is an error of epsilon over the signal: (noise - guess) / signal.
    np.testing.assert_allclose(a["mse"] / alpha_bar[:, 0, 0, 0], b["mse"], rtol=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_exact_answer_has_no_error(prediction):
    process = make_gaussian(DiffusionConfig(prediction=prediction, schedule="cosine"), learn_sigma=False)
    clean, noise, t = _normal(0), _normal(1), jnp.array([0, 3, 500, 999])
    alpha_bar = jnp.asarray(np.cumprod(1 - process.betas), jnp.float32)[t][:, None, None, None]
    answer = noise if prediction == "epsilon" else jnp.sqrt(alpha_bar) * noise - jnp.sqrt(1 - alpha_bar) * clean
    losses = process.losses(answer, clean, noise, t)
    assert set(losses) == {"loss", "mse"}
    np.testing.assert_allclose(losses["loss"], 0, atol=1e-8)


def test_times_cover_the_process_and_the_embedding_sees_a_scale_of_1000():
    process = make_process(DiffusionConfig(train_steps=50), learn_sigma=False)
    t = process.draw_times(jax.random.key(0), 4000)
    assert t.dtype == jnp.int32
    counts = np.bincount(t, minlength=50)
    assert len(counts) == 50
    assert counts.min() > 40
    np.testing.assert_allclose(process.model_time(jnp.array([0, 1, 49])), [0, 20, 980])


def test_a_flow_has_no_variance():
    with pytest.raises(UserError, match=r"model\.learn_sigma is True"):
        make_process(DiffusionConfig(process="flow"), learn_sigma=True)
