import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from kind_jax.errors import UserError
from kind_jax.evaluate import judge_net, judge_train
from kind_jax.evaluate.judge import Judge, train_judge
from kind_jax.evaluate.quality import quality, train_vs_test


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    images = (data.images / 8 - 1).astype(np.float32)[..., None]
    return train_test_split(images, data.target, test_size=500, stratify=data.target, random_state=0)


@pytest.fixture(scope="module")
def judge(digits):
    train, _, labels, _ = digits
    return train_judge(train, labels, 10, seed=0, steps=200)


def test_learns_digits_it_never_saw(judge, digits):
    _, test, _, labels = digits
    # A quarter of the default training, which reaches 98.8 % and more.
    assert np.mean(judge.predict(test) == labels) > 0.955
    assert judge.features(test).shape == (500, 32)


def test_batches_do_not_matter(judge, digits):
    test = digits[1]
    together = judge.features(test)
    np.testing.assert_allclose(judge.features(test[300:301]), together[300:301], rtol=1e-4, atol=1e-5)
    assert judge.features(test[:0]).shape == (0, 32)
    assert judge.predict(test[:0]).shape == (0,)


def test_quality_tells_good_samples_from_bad_ones(judge, digits):
    train, test, _, labels = digits
    rng = np.random.default_rng(0)
    good = train_vs_test(judge, train, test, labels)
    assert good == quality(judge, test, labels, train)
    wrong_class = quality(judge, test, (labels + 1) % 10, train)
    assert wrong_class["class_accuracy"] < 0.04
    assert wrong_class["frechet"] == good["frechet"]
    noisy = np.clip(test + rng.normal(0, 0.6, test.shape), -1, 1).astype(np.float32)
    one_class = np.repeat(test[labels == 3], 11, axis=0)[:500]
    assert quality(judge, noisy, labels, train)["frechet"] > 3 * good["frechet"]
    assert quality(judge, one_class, np.full(500, 3), train)["frechet"] > 10 * good["frechet"]
    assert all(type(value) is float for value in good.values())


def test_same_seed_same_judge_and_cache_only_serves_the_same_training(digits, tmp_path, monkeypatch):
    train, test, labels, _ = digits
    path = tmp_path / "judge.safetensors"
    first = train_judge(train, labels, 10, seed=3, steps=5, cache=path)
    assert np.array_equal(train_judge(train, labels, 10, seed=3, steps=5).features(test), first.features(test))
    other = train_judge(train, labels, 10, seed=4, steps=5, cache=path)
    assert other.fingerprint != first.fingerprint
    monkeypatch.setattr(judge_train, "fit", None)  # a second training would now fail
    cached = train_judge(train, labels, 10, seed=4, steps=5, cache=path)
    assert np.array_equal(cached.features(test), other.features(test))
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match="is not a"):
        train_judge(train, labels, 10, seed=4, steps=5, cache=path)


def test_file_round_trip_and_strict_checks(judge, digits, tmp_path):
    path = tmp_path / "judge.safetensors"
    judge.save(path)
    loaded = Judge.load(path)
    assert dataclasses.replace(loaded, params={}).__dict__ == dataclasses.replace(judge, params={}).__dict__
    assert np.array_equal(loaded.predict(digits[1]), judge.predict(digits[1]))

    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        header = file.metadata()
    kernel = tensors["head.kernel"]
    cases = [
        (tensors | {"extra": kernel}, header, "has the tensor 'extra'"),
        ({k: v for k, v in tensors.items() if k != "head.bias"}, header, r"lacks the tensor 'head\.bias'"),
        (
            tensors | {"head.kernel": kernel[:, :9].copy()},
            header,
            r"float32\[32, 9\], but it must be float32\[32, 10\]",
        ),
        (tensors | {"head.kernel": kernel.astype(np.float16)}, header, "float16"),
        (tensors | {"head.kernel": kernel * np.nan}, header, "not finite"),
        (tensors, {}, "must be a saved judge"),
        (tensors, {k: v.replace("num_classes", "classes") for k, v in header.items()}, "num_classes"),
    ]
    for bad, facts, match in cases:
        safetensors.numpy.save_file(bad, path, facts)
        with pytest.raises(UserError, match=match):
            Judge.load(path)
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match="is not a"):
        Judge.load(path)
    with pytest.raises(UserError, match="no such file"):
        Judge.load(tmp_path / "nope")


def test_refuses_what_does_not_fit(judge, digits):
    train, _, labels, _ = digits
    with pytest.raises(UserError, match=r"\(4, 4, 1\), but it was trained on shape \(8, 8, 1\)"):
        judge.predict(np.zeros((1, 4, 4, 1), np.float32))
    with pytest.raises(UserError, match="not finite"):
        judge.features(np.full((1, 8, 8, 1), np.nan, np.float32))
    with pytest.raises(UserError, match="label 9, but labels must be 0 to 8"):
        train_judge(train, labels, 9, seed=0, steps=1)
    with pytest.raises(UserError, match="7 labels for 8 images"):
        train_judge(train[:8], labels[:7], 10, seed=0, steps=1)
    with pytest.raises(UserError, match="at least 33"):
        quality(judge, train[:20], labels[:20], train)
    with pytest.raises(UserError, match="19 labels for 20 samples"):
        quality(judge, train[:20], labels[:19], train)


def test_other_image_shapes_and_every_pixel_counts():
    shape = (5, 8, 3)
    params = judge_net.init(shape, 4, jax.random.key(0))
    judge = Judge(params=params, shape=shape, num_classes=4, fingerprint="")
    images = np.zeros((1 + 5 * 8, *shape), np.float32)
    images[1:].reshape(40, 40, 3)[np.arange(40), np.arange(40)] = 1.0
    features = judge.features(images)
    assert features.shape == (41, 32)
    assert (np.abs(features[1:] - features[:1]).max(axis=1) > 1e-4).all()
    assert np.unique(features.round(6), axis=0).shape[0] == 41
