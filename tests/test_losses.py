"""Losses of distillation against closed forms, to the digit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import hyp0f1

from kind_jax.errors import UserError
from kind_jax.losses import align, info_nce, kd, normalised, uniform

RNG = np.random.default_rng(0)


def rows(*shape):
    return jnp.asarray(RNG.standard_normal(shape).astype(np.float32))


def circle(count):
    angle = 2 * np.pi * np.arange(count) / count
    return jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32))


def simplex(count):
    """``count`` points with one distance, on the sphere."""
    points = np.eye(count) - 1 / count
    return jnp.asarray((points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32))


@pytest.mark.parametrize(
    ("x", "value"),
    [
        (jnp.ones((5, 3)) / 3**0.5, 0.0),
        (jnp.asarray([[1.0, 0.0], [-1.0, 0.0]]), -8.0),
        (jnp.eye(2), -4.0), (jnp.eye(7), -4.0),
        (simplex(3), -6.0), (simplex(4), -16 / 3), (simplex(65), -4.0625),
        (circle(4), -4.396349), (circle(6), -2.896924),
        (jnp.concatenate([jnp.eye(4), -jnp.eye(4)]), -4.151103),
    ],
)  # fmt: skip
def test_uniformity_of_known_configurations(x, value):
    np.testing.assert_allclose(uniform(x), value, atol=2e-6)


def test_uniformity_is_bounded_invariant_and_near_that_of_the_sphere():
    x = normalised(rows(256, 128))
    turn = jnp.asarray(np.linalg.qr(RNG.standard_normal((128, 128)))[0].astype(np.float32))
    np.testing.assert_allclose(uniform(x @ turn), uniform(x), atol=1e-5)
    np.testing.assert_allclose(uniform(x[::-1]), uniform(x), atol=1e-6)
    assert uniform(x) >= -4 * 256 / 255
    sphere = np.log(hyp0f1(64, 4.0)) - 4  # log 0F1(; d/2; t²) - 2t
    assert sphere == pytest.approx(-3.937530, abs=1e-6)
    assert float(uniform(x)) == pytest.approx(sphere, abs=0.01)


def test_alignment():
    u, v = normalised(rows(8, 5)), normalised(rows(8, 5))
    cosines = np.sum(np.asarray(u) * np.asarray(v), axis=1)
    np.testing.assert_allclose(align(u, v), 2 - 2 * cosines.mean(), atol=1e-6)
    assert float(align(u, -u)) == pytest.approx(4, abs=1e-6)
    np.testing.assert_allclose(jax.grad(align)(u, v), 2 * (u - v) / 8, atol=1e-7)
    for alpha in (0.5, 1.0, 2.0, 3.0):
        assert float(align(u, u, alpha)) == 0
        assert float(align(u, v, alpha)) == pytest.approx(float(align(v, u, alpha)))
        np.testing.assert_array_equal(jax.grad(align)(u, u, alpha), 0)


@pytest.mark.parametrize(("temperature", "value"), [(1.0, 1.150421), (4.0, 1.319630), (100.0, 1.333311)])
def test_distillation_of_logits(temperature, value):
    s, t = jnp.asarray([[1.0, 2.0, 3.0]]), jnp.asarray([[3.0, 2.0, 1.0]])
    np.testing.assert_allclose(kd(s, t, temperature), value, rtol=2e-5)
    np.testing.assert_allclose(kd(s, s + 5, temperature), 0, atol=1e-3)
    if temperature == 4:
        np.testing.assert_allclose(jax.grad(kd)(s, t), [[-0.659815, 0, 0.659815]], atol=1e-5)


def test_info_nce_is_alignment_and_a_uniformity_across_views():
    """InfoNCE - log B = -1/T + align / 2T + mean_i log mean_j exp(u_i · v_j / T)."""
    u, v, temperature = normalised(rows(16, 8)), normalised(rows(16, 8)), 0.25
    across = jax.nn.logsumexp(u @ v.T / temperature, axis=1) - jnp.log(16)
    found = -1 / temperature + align(u, v) / (2 * temperature) + jnp.mean(across)
    np.testing.assert_allclose(info_nce(u, v, temperature) - jnp.log(16), found, atol=2e-6)


def test_a_row_of_zeros_has_a_length_of_zero_and_a_finite_gradient():
    x = jnp.zeros((2, 3)).at[0].set(1.0)
    found = normalised(x)
    np.testing.assert_allclose(jnp.sum(found * found, axis=1), [1, 0], atol=1e-6)
    assert jnp.isfinite(jax.grad(lambda x: jnp.sum(normalised(x) ** 2 * 3))(x)).all()
    collapsed = jnp.ones((4, 3)) / 3**0.5
    assert jnp.isfinite(jax.grad(uniform)(collapsed)).all()


def test_on_one_device_and_on_eight():
    x = normalised(rows(16, 8))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    np.testing.assert_allclose(jax.jit(uniform)(spread), uniform(x), atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(uniform))(spread), jax.grad(uniform)(x), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: uniform(jnp.ones((1, 4))), r"^uniformity is about pairs, but the batch has 1"),
        (lambda: uniform(jnp.eye(3), 0.0), r"^t is 0\.0, but it must be positive and finite"),
        (lambda: align(jnp.eye(3), jnp.eye(3), -1.0), r"^alpha is -1\.0"),
        (lambda: kd(jnp.eye(3), jnp.eye(3), float("nan")), r"^temperature is nan"),
        (lambda: info_nce(jnp.eye(3), jnp.eye(3), 0.0), r"^temperature is 0\.0"),
    ],
)
def test_impossible_arguments(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
