"""Statistics over any number of samples, and BatchNorm's found anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.errors import UserError
from kind_jax.merging import batchnorm, plan, table_of
from kind_jax.merging.images import Mixed
from kind_jax.merging.statistics import Statistics, collect
from tests.merging.test_symmetry import RESNET, inputs, weights


def memory(images):
    labels = np.zeros(len(images), np.int32)
    return Dataset(
        source=MemorySource(images=images, labels=labels),
        class_names=("a",),
        image_shape=images.shape[1:],
        fingerprint={},
    )


def linear(weights, x):
    return (x @ weights["a"] + weights["b"][None, :]) @ weights["c"]


def models(offset=0.0):
    rng = np.random.default_rng(0)
    return [
        {
            "a": rng.standard_normal((4, 6)).astype(np.float32),
            "b": np.full(6, offset, np.float32),
            "c": np.ones((6, 2), np.float32),
        }
        for _ in range(3)
    ]


def found(weights, x, batch, devices=None):
    table = table_of(linear, weights[0], x)
    batches = [(x[i : i + batch],) for i in range(0, len(x), batch)]
    leaves = [table.split(each) for each in weights]
    return collect(table, leaves, batches, plan.wanted(table, [0]), devices)[0]


@pytest.mark.parametrize("batch", [1000, 96, 7])
def test_as_numpy_has_it(batch):
    """However the samples come, and where the mean is far greater than the deviation."""
    x = np.random.default_rng(1).standard_normal((1000, 4)).astype(np.float32)
    for offset, tolerance in ((0.0, 1e-5), (1000.0, 1e-3)):
        own = models(offset)
        features = np.concatenate([x.astype(float) @ each["a"] + each["b"] for each in own], axis=1)
        got = found(own, x, batch)
        np.testing.assert_allclose(got.covariance, np.cov(features.T, bias=True), atol=tolerance)
        np.testing.assert_allclose(got.correlation, np.corrcoef(features.T), atol=tolerance)
        np.testing.assert_allclose(got.mean, features.mean(axis=0), rtol=1e-5, atol=1e-5)
        assert got.count == 1000


def test_split_over_devices():
    """The same on eight devices; a last batch that they do not divide too."""
    x = np.random.default_rng(1).standard_normal((100, 4)).astype(np.float32)
    alone, split = (found(models(), x, 64, devices) for devices in (jax.devices()[:1], jax.devices()))
    assert len(jax.devices()) == 8
    np.testing.assert_allclose(split.covariance, alone.covariance, atol=1e-5)


def test_features_that_never_change():
    """They go with nothing that changes, and with each other as before their ReLU."""
    covariance = np.diag([2.0, 0.0, 2.0, 0.0])
    covariance[0, 2] = covariance[2, 0] = 1.0
    unclipped = np.ones((4, 4))
    alone = Statistics(2, 9, np.zeros(4), covariance)
    assert alone.dead.tolist() == [False, True, False, True]
    assert alone.correlation[0, 2] == pytest.approx(0.5)
    assert not alone.correlation[1].any()
    both = Statistics(2, 9, np.zeros(4), covariance, unclipped)
    assert both.correlation[1, 3] == 1
    assert both.correlation[1, 0] == 0


def test_what_is_not_finite_and_what_is_not_there():
    x = np.full((8, 4), np.nan, np.float32)
    with pytest.raises(UserError, match="features of a model are not finite"):
        found(models(), x, 8)
    with pytest.raises(UserError, match="there are no images to match features on"):
        found(models(), x[:0], 8)


def test_batchnorm_found_anew(optimised):
    """Means over batches of their means and unbiased variances; by hand for the first layer."""
    collections, (x,) = weights(RESNET), inputs(RESNET, 50)
    batches = [x[:20], x[20:40], x[40:]]
    got = batchnorm.reset(RESNET, collections, batches)
    stem = [
        np.asarray(
            jax.lax.conv_general_dilated(
                jnp.asarray(each), collections["params"]["stem"]["kernel"], (1, 1), [(1, 1)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            ),
            np.float64,
        ).reshape(-1, 4)
        for each in batches
    ]  # fmt: skip
    np.testing.assert_allclose(got["stats"]["norm"]["mean"], np.mean([a.mean(0) for a in stem], 0), atol=1e-6)
    np.testing.assert_allclose(got["stats"]["norm"]["var"], np.mean([a.var(0, ddof=1) for a in stem], 0), rtol=1e-5)
    assert got["params"] is collections["params"]
    with pytest.raises(UserError, match="has 1 image, but it must have 2 or more"):
        batchnorm.reset(RESNET, collections, [x[:1]])


def test_images_are_mixed():
    """As many of each task as the smallest has, the same ones every time."""
    tasks = [memory(np.full((count, 4, 4, 1), value, np.float32)) for count, value in ((30, 0.0), (12, 0.5))]
    images = Mixed(tasks, count=None, batch=10, seed=0)
    once, again = list(images), list(images)
    assert images.count == 24
    assert [len(each) for each in once] == [10, 10, 4]
    np.testing.assert_array_equal(np.concatenate(once), np.concatenate(again))
    assert np.concatenate(once).mean() == pytest.approx(0.25)
    assert 0 < once[0].mean() < 0.5
    assert Mixed(tasks, count=10, batch=10, seed=0).count == 10
    for count in (3, 25):
        with pytest.raises(UserError, match=f"images is {count}, but it must be a whole number from 4 to 24"):
            Mixed(tasks, count=count, batch=10, seed=0)
