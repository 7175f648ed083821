"""Losses of distillation against closed forms, to the digit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import hyp0f1

from kind_jax.errors import UserError
from kind_jax.losses import (
    align,
    crd,
    crd_scores,
    feature,
    info_nce,
    kd,
    layerwise,
    normalised,
    uniform,
    uniform_on_sphere,
)

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
    known = {2: -1.575027, 3: -2.079777, 8: -3.082527, 64: -3.875236, 128: -3.937530}
    for d, value in known.items():
        assert uniform_on_sphere(d) == pytest.approx(value, abs=1e-6)
        assert uniform_on_sphere(d, 3.0) == pytest.approx(np.log(hyp0f1(d / 2, 9.0)) - 6, rel=1e-9)
    sphere = uniform_on_sphere(128)
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
    np.testing.assert_allclose(kd(s, s + 5, temperature), 0, atol=1e-9 * temperature**2)
    if temperature == 4:
        np.testing.assert_allclose(jax.grad(kd)(s, t), [[-0.659815, 0, 0.659815]], atol=1e-5)


def test_info_nce_is_alignment_and_a_uniformity_across_views():
    """InfoNCE - log B = -1/T + align / 2T + mean_i log mean_j exp(u_i · v_j / T)."""
    u, v, temperature = normalised(rows(16, 8)), normalised(rows(16, 8)), 0.25
    across = jax.nn.logsumexp(u @ v.T / temperature, axis=1) - jnp.log(16)
    found = -1 / temperature + align(u, v) / (2 * temperature) + jnp.mean(across)
    np.testing.assert_allclose(info_nce(u, v, temperature) - jnp.log(16), found, atol=1e-6)


def test_distillation_of_logits_at_any_temperature():
    """Against float64; the limit is half the squared difference of centred logits over the number of classes."""
    s, t = 3 * rows(7, 10), 3 * rows(7, 10)
    z, w = (np.asarray(x, np.float64) for x in (s, t))
    for temperature in (0.05, 0.5, 4.0, 30.0, 1e3, 1e5):
        logs = [a / temperature - np.log(np.sum(np.exp(a / temperature), axis=1, keepdims=True)) for a in (z, w)]
        wanted = temperature**2 * np.mean(np.sum(np.exp(logs[1]) * (logs[1] - logs[0]), axis=1))
        np.testing.assert_allclose(kd(s, t, temperature), wanted, rtol=2e-5 if temperature < 1e5 else 1e-3)
        slope = temperature * (np.exp(logs[0]) - np.exp(logs[1])) / 7
        np.testing.assert_allclose(jax.grad(kd)(s, t, temperature), slope, rtol=1e-3, atol=2e-5)
    centred = (z - w) - (z - w).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(kd(s, t, 1e6), np.mean(np.sum(centred**2, axis=1)) / 20, rtol=1e-4)
    assert float(kd(s, jnp.where(jnp.arange(10)[None] < 2, t, -jnp.inf))) > 0
    assert float(kd(jnp.where(jnp.arange(10)[None] < 2, s, -jnp.inf), t)) == np.inf


def test_distillation_of_logits_where_classes_are_left_out():
    """As a gated classifier leaves out those of other superclasses: they count for nothing, in the gradient too."""
    s, t = jnp.asarray([[1.0, 2.0, 3.0]]), jnp.asarray([[3.0, 2.0, 1.0]])
    masked = [jnp.concatenate([x, jnp.full((1, 2), -jnp.inf)], axis=1) for x in (s, t)]
    np.testing.assert_allclose(kd(*masked), kd(s, t), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(kd)(*masked)[:, :3], jax.grad(kd)(s, t), atol=1e-7)
    assert jnp.isfinite(jax.grad(kd)(*masked)).all()
    assert float(kd(s, jnp.where(jnp.arange(3)[None] == 1, t, -jnp.inf))) > 0


def test_contrastive_representation_distillation():
    """Where nothing tells pairs apart, log(1 + N) + N log(1 + 1 / N); pairs that are told apart cost less."""
    even = jnp.full((5, 4097), 1 / 1000)
    np.testing.assert_allclose(crd(even[:, 0], even[:, 1:], 1000), 9.3179, rtol=1e-4)
    u = normalised(rows(4, 8))
    scores = crd_scores(u, jnp.stack([u, -u], axis=1), 0.5)
    np.testing.assert_allclose(scores, np.broadcast_to(np.exp([2.0, -2.0]), (4, 2)), rtol=1e-5)
    told, swapped = crd(scores[:, 0] / 10, scores[:, 1:] / 10, 10), crd(scores[:, 1] / 10, scores[:, :1] / 10, 10)
    assert float(told) < np.log(2) + np.log(2) < float(swapped)


def test_features_layer_by_layer():
    x, y = rows(2, 3, 4), rows(2, 3, 4)
    mask = jnp.asarray([[1, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(feature(x, y), np.mean((np.asarray(x) - np.asarray(y)) ** 2), rtol=1e-6)
    np.testing.assert_allclose(feature(x, y, jnp.ones((2, 3))), feature(x, y), rtol=1e-6)
    kept = np.asarray(mask, bool)
    wanted = np.mean((np.asarray(x)[kept] - np.asarray(y)[kept]) ** 2)
    spoilt = jnp.where(mask[..., None] == 0, jnp.nan, x)
    np.testing.assert_allclose(feature(spoilt, y, mask), wanted, rtol=1e-6)
    assert jnp.isfinite(jax.grad(feature)(spoilt, y, mask)).all()
    assert float(feature(x, y, jnp.zeros((2, 3)))) == 0
    teachers = [rows(2, 3, 4) for _ in range(4)]
    every_second = (feature(x, teachers[1]) + feature(y, teachers[3])) / 2
    np.testing.assert_allclose(layerwise([x, y], teachers), every_second, rtol=1e-6)
    np.testing.assert_allclose(layerwise([x, y, x], [x, y]), feature(x, y) / 3, rtol=1e-6)


def test_a_row_of_zeros_has_a_length_of_zero_and_a_finite_gradient():
    x = jnp.zeros((2, 3)).at[0].set(1.0)
    found = normalised(x)
    np.testing.assert_allclose(jnp.sum(found * found, axis=1), [1, 0], atol=1e-6)
    assert jnp.isfinite(jax.grad(lambda x: jnp.sum(normalised(x) ** 2 * 3))(x)).all()
    for scale in (1e-30, 1e25):
        np.testing.assert_allclose(normalised(scale * jnp.asarray([[3.0, 4.0]])), [[0.6, 0.8]], rtol=1e-6)
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
        (lambda: kd(jnp.zeros((2, 3)), jnp.zeros((1, 3))), r"logits have the shapes \(2, 3\) and \(1, 3\)"),
        (lambda: align(jnp.eye(3), jnp.ones((1, 3))), r"^u and v have the shapes"),
        (lambda: info_nce(jnp.eye(3), jnp.ones((5, 3))), r"^u and v have the shapes"),
        (lambda: uniform_on_sphere(0), r"^dimensions and t are 0"),
        (lambda: uniform_on_sphere(8, -1.0), r"^dimensions and t are 8 and -1"),
        (lambda: crd(jnp.ones(3), jnp.ones((2, 4)), 10), r"^CRD needs negatives for each positive pair"),
        (lambda: crd(jnp.ones(3), jnp.ones((3, 0)), 10), r"^CRD needs negatives .* 0 negatives of 10"),
        (lambda: feature(jnp.eye(3), jnp.ones((3, 4))), r"^student and teacher have features \(3, 3\) and \(3, 4\)"),
        (lambda: feature(jnp.eye(3), jnp.eye(3), jnp.ones(4)), r"^the mask has the shape \(4,\)"),
        (lambda: layerwise([], [jnp.eye(3)]), r"^layers are compared, but the student has 0 and the teacher 1"),
    ],
)
def test_impossible_arguments(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
