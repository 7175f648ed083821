"""One pass over images, and each metric against a closed form or brute force."""

import dataclasses

import numpy as np
import pytest

from kind_jax.errors import UserError
from kind_jax.evaluating.extractor import Extractor, Features, MetricNames
from kind_jax.evaluating.frechet import frechet_distance, gaussian_fit
from kind_jax.evaluating.intervals import wilson
from kind_jax.evaluating.metrics import Score, compare, look, spread
from kind_jax.evaluating.moments import Moments
from kind_jax.evaluating.neighbours import precision_recall
from kind_jax.evaluating.pixels import dequantise, quantise, to_rgb


@dataclasses.dataclass(eq=False)
class Counting:
    """Four pixels as features; counts how often it sees each image, which carries its number in one pixel."""

    seen: np.ndarray
    name: str = "four"
    fingerprint: str = "f"
    names: MetricNames = MetricNames.of("four")
    dims: int = 4
    knows_classes: bool = True

    def __call__(self, images):
        number = np.rint((images[:, 0, 0, 0] + 1) * 127.5).astype(int)
        number += 256 * np.rint((images[:, 0, 1, 0] + 1) * 127.5).astype(int)
        np.add.at(self.seen, number, 1)
        flat = images[:, 1].reshape(len(images), -1)
        guess = np.eye(3, dtype=np.float32)[number % 3] * 0.9 + 0.1 / 3
        return Features(pool=flat[:, :4], spatial=flat[:, 2:5], probabilities=guess)


def numbered(count):
    pixels = np.random.default_rng(count).integers(0, 256, (count, 2, 6, 1), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 1, 0] = np.arange(count) % 256, np.arange(count) // 256
    return pixels


def test_one_pass_gives_every_metric():
    pixels, extractor = numbered(700), Counting(seen=np.zeros(700, int))
    assert isinstance(extractor, Extractor)
    labels = np.where(np.arange(700) < 70, -1, np.arange(700) % 3).astype(np.int32)
    done = []
    parts = [(pixels[:300], labels[:300]), (pixels[300:], labels[300:])]
    drawn = look(extractor, parts, "the samples", progress=done.append)
    assert (extractor.seen == 1).all()
    assert done == [256, 300, 556, 700]
    real = look(extractor, [(numbered(500), None)], "the reference", keep=60)
    assert real.accuracy is None
    found = compare(extractor.names, drawn, real)
    intervals = spread(extractor.names, drawn, real, found)
    assert list(intervals) == list(found)
    for name, (low, high) in intervals.items():
        assert low <= found[name] <= high
        assert high > low
    assert intervals["class_accuracy"] == wilson(630, 700)
    assert list(found) == [
        "class_accuracy", "four_frechet", "four_spatial_frechet", "four_score", "precision", "recall"
    ]  # fmt: skip
    assert found["class_accuracy"] == pytest.approx(0.9)
    features = dequantise(pixels)[:, 1].reshape(700, -1)[:, :4]
    mean, cov = gaussian_fit(features)
    want = frechet_distance(mean, cov, real.pool.mean, real.pool.cov)
    assert found["four_frechet"] == pytest.approx(want, rel=1e-9)
    assert drawn.kept is not None
    assert real.kept is not None
    np.testing.assert_array_equal(drawn.kept, features)
    assert real.kept.shape == (60, 4)
    assert len(np.unique(real.kept, axis=0)) == 60
    with pytest.raises(UserError, match="the samples are 4, but 4 features need at least 5 images"):
        look(extractor, [(pixels[:4], None)], "the samples")


def test_moments_of_a_stream():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(101, 5)) @ rng.normal(size=(5, 5)) + 1e4  # a mean that one-pass sums of squares would drown
    moments = Moments()
    for part in np.split(rows, [1, 40, 40, 77]):
        moments.add(part)
    fit = moments.fit("rows")
    np.testing.assert_allclose(fit.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(fit.cov, np.cov(rows, rowvar=False), rtol=1e-9)
    with pytest.raises(UserError, match="not all finite"):
        moments.add(np.full((1, 5), np.inf))


def test_inception_score():
    rng = np.random.default_rng(0)

    def score(probabilities, split, chunks=1):
        score = Score(split)
        for part in np.array_split(probabilities, chunks):
            score.add(part)
        return score.value()

    certain = np.tile(np.eye(4, dtype=np.float32), (6, 1))  # zeros included
    assert score(certain, 100) == pytest.approx(4)  # sure, and all classes alike
    assert score(np.full((24, 4), 0.25, np.float32), 100) == pytest.approx(1)
    # Consecutive splits, the last one smaller: 8 images of one class, 8 of another, 4 of two.
    blocks = np.eye(4, dtype=np.float32)[[0] * 8 + [1] * 8 + [2, 3, 2, 3]]
    assert score(blocks, 8, chunks=7) == pytest.approx((1 + 1 + 2) / 3)
    p = rng.dirichlet(np.ones(5), 30)
    want = np.exp(np.mean(np.sum(p * (np.log(p) - np.log(p.mean(axis=0))[None, :]), axis=1)))
    assert score(p.astype(np.float32), 5000, chunks=4) == pytest.approx(want, rel=1e-5)


def test_precision_and_recall_against_brute_force():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(90, 6)).astype(np.float32) + 50
    drawn = (rng.normal(size=(70, 6)) * np.array([[1.5, 1, 1, 1, 0.2, 1]])).astype(np.float32) + 50

    def distances(a, b):
        return np.linalg.norm(a[:, None].astype(np.float64) - b[None], axis=-1)

    radius_real, radius_drawn = (np.sort(distances(a, a), axis=1)[:, 3] for a in (real, drawn))
    between = distances(real, drawn)
    want = (between <= radius_real[:, None]).any(axis=0).mean(), (between <= radius_drawn[None, :]).any(axis=1).mean()
    assert 0.1 < want[0] < 0.9
    assert 0.1 < want[1] < 0.9
    assert precision_recall(real, drawn) == pytest.approx(want)
    assert precision_recall(real, drawn, block=32) == pytest.approx(want)
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, drawn + 100) == (0.0, 0.0)
    # One mode of two: all samples are good, and half of the reference is missed.
    two = np.concatenate([real, real + 100])
    assert precision_recall(two, real) == (1.0, 0.5)
    with pytest.raises(UserError, match="got 3 images as samples, but need at least 4"):
        precision_recall(real, drawn[:3])


def test_pixels():
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(quantise(dequantise(every)), every)
    # As torch.clamp(127.5 * x + 128, 0, 255).to(uint8) in DiT's sample_ddp.
    values = np.array([-2, -1, -0.996, -0.001, 0, 0.001, 0.996, 1, 3], np.float32).reshape(1, 3, 3, 1)
    assert quantise(values).ravel().tolist() == [0, 0, 1, 127, 128, 128, 254, 255, 255]
    assert to_rgb(every).shape == (1, 16, 16, 3)
    with pytest.raises(UserError, match="not finite"):
        quantise(np.full((1, 1, 1, 1), np.nan, np.float32))
