import matplotlib
import numpy as np
import pytest

from kind_jax.config import DataConfig
from kind_jax.data import glyphs
from kind_jax.data.dataset import open_dataset
from kind_jax.errors import UserError


def test_splits_are_balanced_and_share_no_image(records):
    found = records("glyphs")
    seen = []
    for split, per_class in (("train", 150), ("test", 50)):
        dataset, images, labels = found[split]
        assert dataset.image_shape == (8, 8, 1)
        assert dataset.class_names == ("gamma", "delta", "lambda", "pi", "sigma", "phi", "psi", "omega", "i", "tse")
        np.testing.assert_array_equal(np.bincount(labels), np.full(10, per_class))
        seen += [image.tobytes() for image in images]
    assert len(set(seen)) == 2000


def test_strokes_are_white_on_black_and_reach_no_further_than_a_digits_do(records):
    _, images, labels = records("glyphs")["train"]
    assert images.min() == 0
    assert images.max() == 255
    # Every image shows a letter, and is mostly background: the mean of the digits is 0.31.
    assert images.max(axis=(1, 2)).min() > 64
    assert 0.2 < images.mean() / 255 < 0.4
    # A record is its own, not one letter with noise: pixels of a class vary, and no two of its images are close.
    for label in range(10):
        flat = images[labels == label].reshape(150, 64).astype(float)
        distance = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(-1)) + 1e3 * np.eye(150)
        assert distance.min() > 2


def test_classes_can_be_told_apart(recognised):
    found = recognised("glyphs")
    assert found.mean() > 0.93
    assert found.min() > 0.8


def test_preparing_again_gives_the_same_records(records, tmp_path):
    glyphs._font.cache_clear()
    again = open_dataset(DataConfig(source="glyphs", path=str(tmp_path)), "test")
    assert again.fingerprint == records("glyphs")["test"][0].fingerprint


def test_missing_fonts_are_named_and_nothing_is_left_half_prepared(tmp_path, monkeypatch):
    glyphs._font.cache_clear()
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"nowhere/fonts/ttf/.*ttf' is missing, but matplotlib must be installed whole"):
        open_dataset(DataConfig(source="glyphs", path=str(tmp_path / "data")), "train")
    assert [path.name for path in (tmp_path / "data").rglob("*")] == ["glyphs"]
