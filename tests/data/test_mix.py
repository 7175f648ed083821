"""Synthetic images beside real ones: the right labels whatever the folders' order, and as many as were asked for."""

import dataclasses
import shutil

import numpy as np
import pytest
from image_folders import CLASSES, config, fill
from PIL import Image

from kind_jax.config import DataConfig, change
from kind_jax.data import dataset as dataset_module
from kind_jax.data.bad import BadRecords
from kind_jax.data.dataset import open_dataset
from kind_jax.data.decode import to_float
from kind_jax.data.mix import RECIPE, STATE, shares
from kind_jax.data.pipeline import batches, describe_difference, fingerprint
from kind_jax.data.summary import summary
from kind_jax.errors import UserError

DIGITS = tuple("0123456789")


def draw(root, shades, count, size=8, mode="L"):
    """A folder as synthesize writes it: image i of a class is of the class's shade, its first pixel is i."""
    for name, shade in shades.items():
        (root / "train" / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.full((size, size), shade, np.uint8)
            pixels[0, 0] = i
            Image.fromarray(pixels).convert(mode).save(root / "train" / name / f"{i:08}.png")
    (root / RECIPE).write_text("{}\n")
    return str(root)


@pytest.fixture
def drawn(tmp_path):
    return draw(tmp_path / "drawn", {name: 20 * int(name) for name in DIGITS}, 200)


@pytest.fixture
def digits(digits_root, drawn):
    """Real classes in another order than that of the folders."""
    return DataConfig(path=str(digits_root), classes=(7, 2, 0), validation=0.2, fraction=0.5, mix=drawn)


@pytest.mark.parametrize("memory", [0, 1_000_000, 1 << 30])  # neither is in memory, the real set, both
def test_labels_are_right_and_real_images_come_first(digits, memory, monkeypatch):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", memory)
    monkeypatch.setattr(dataset_module, "_fits_in_memory", lambda *given: memory > 0)
    mixed = open_dataset(change(digits, mix_ratio=1.5), "train")
    alone = open_dataset(change(digits, mix=None), "train")
    real, total = len(alone.source), len(mixed.source)
    assert total - real == round(1.5 * real)
    batch = mixed.source.gather(range(total))
    whole = alone.source.gather(range(real))
    np.testing.assert_array_equal(batch["image"][:real], whole["image"])
    np.testing.assert_array_equal(batch["label"][:real], whole["label"])
    counts = np.bincount(whole["label"])
    assert mixed.synthetic == tuple(np.bincount(batch["label"][real:]))
    assert np.abs(np.array(mixed.synthetic) - 1.5 * counts).max() < 1
    for label, name in enumerate("720"):  # of each class the first ones by name, with the shade of its own digit
        images = batch["image"][real:][batch["label"][real:] == label]
        np.testing.assert_array_equal(images[:, 7, 7], to_float(np.full((len(images), 1), 20 * int(name), np.uint8)))
        np.testing.assert_array_equal(images[:, 0, 0, 0], to_float(np.arange(len(images), dtype=np.uint8)))
    for split in ("validation", "test"):
        pure = open_dataset(digits, split)
        assert pure.fingerprint == open_dataset(change(digits, mix=None), split).fingerprint
    np.testing.assert_array_equal(mixed.source[total - 1]["image"], batch["image"][-1])
    # The pipeline shuffles all of them together, each once an epoch.
    stream = batches(mixed, batch=total, seed=0)
    first, second = next(stream), next(stream)
    assert (first["label"] != second["label"]).any()
    for epoch in (first, second):
        np.testing.assert_array_equal(np.bincount(epoch["label"]), counts + mixed.synthetic)


def test_the_fingerprint_names_what_was_mixed_in_and_not_where_it_lies(digits, drawn, tmp_path):
    saved = fingerprint(open_dataset(digits, "train"), batch=8, seed=0)
    moved = str(shutil.copytree(drawn, tmp_path / "moved"))
    again = fingerprint(open_dataset(change(digits, mix=moved), "train"), batch=8, seed=0)
    assert describe_difference(saved, again) is None
    for i in range(150, 200):  # images that are not taken do not count
        Image.new("L", (8, 8), 7).save(f"{moved}/train/7/{i:08}.png")
    assert fingerprint(open_dataset(change(digits, mix=moved), "train"), batch=8, seed=0) == saved
    Image.new("L", (8, 8), 7).save(f"{moved}/train/7/{0:08}.png")
    other = fingerprint(open_dataset(change(digits, mix=moved), "train"), batch=8, seed=0)
    assert describe_difference(saved, other) == "dataset.mix.content.sha256 differs"
    more = fingerprint(open_dataset(change(digits, mix_ratio=2.0), "train"), batch=8, seed=0)
    assert "dataset.mix.ratio was 1.0, now 2.0" in describe_difference(saved, more)
    without = fingerprint(open_dataset(change(digits, mix=None), "train"), batch=8, seed=0)
    assert "mix" not in without["dataset"]
    assert "dataset.mix.ratio was absent, now 1.0" in describe_difference(without, saved)


def test_the_summary_tells_real_from_synthetic(tmp_path):
    root = fill(tmp_path / "images")
    mixed = open_dataset(config(root, mix=draw(tmp_path / "drawn", dict.fromkeys(CLASSES, 9), 20, 12, "RGB")), "train")
    lines = summary(dataclasses.replace(mixed))
    assert lines[0].startswith("data: 48 training images of 3 classes, 12 x 12 x 3: Zebra (16), ant (16), bee (16)")
    assert lines[1] == (
        "of these 24 are real and 24 synthetic; real: Zebra (8), ant (8), bee (8); synthetic: Zebra (8), ant (8), "
        "bee (8)"
    )


def test_a_damaged_image_of_a_large_mix_is_replaced_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    mix = draw(tmp_path / "drawn", dict.fromkeys(CLASSES, 9), 8, 12)
    (tmp_path / "drawn" / "train" / "bee" / f"{3:08}.png").write_bytes(b"junk")
    mixed = open_dataset(config(fill(tmp_path / "images"), mix=mix), "train")
    said = []
    bad = BadRecords(mixed, 0.5, said.append)
    batch = mixed.source.gather(range(48))
    assert batch["bad"][batch["bad"] >= 0].tolist() == [43]
    assert bad.take(batch).keys() == {"image", "label"}
    assert "drawn/train/bee/00000003.png: it is no JPEG" in said[0]
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 1 << 30)
    held = open_dataset(config(tmp_path / "images", mix=mix), "train")
    assert (len(held.bad), held.synthetic) == (1, (8, 8, 7))


@pytest.mark.parametrize(
    ("counts", "ratio", "wanted"),
    [
        ([5, 5, 5], 1.0, [5, 5, 5]), ([3, 3, 3, 3], 0.1, [1, 0, 0, 0]), ([1, 2, 4], 0.5, [1, 1, 2]),
        ([10, 7, 3], 2.5, [25, 18, 7]), ([100, 1], 0.25, [25, 0]),
    ],
)  # fmt: skip
def test_shares_add_up(counts, ratio, wanted):
    assert shares(counts, ratio) == wanted


def test_what_does_not_fit_is_refused_by_name(digits, drawn, tmp_path):
    def refused(message, **settings):
        with pytest.raises(UserError, match=message):
            open_dataset(change(digits, **settings), "train")

    refused(r"data.mix is 'nowhere', but it must be a folder with train/ in it", mix="nowhere")
    refused(r"too few images for data.mix_ratio 10.0: 7 \(200 of 520\), .* --per-class 520 draws", mix_ratio=10.0)
    refused(r"data.mix_ratio is 0.0001, which is not one image for \d+ real ones", mix_ratio=0.0001)
    other = str(shutil.copytree(drawn, tmp_path / "other"))
    shutil.rmtree(f"{other}/train/2")
    refused(r"which lacks 2, but it must have every class that the run uses", mix=other)
    refused(r"lacks 2", mix=other, classes=None)
    assert len(open_dataset(change(digits, mix=other, classes=(3,)), "train").synthetic) == 1
    draw(tmp_path / "other", {"2": 1, "cat": 1, "dog": 2}, 100)
    refused(r"which has cat and dog, but its classes must be among those of the data set: 0, 1, .* and 9", mix=other)
    large = draw(tmp_path / "large", dict.fromkeys(DIGITS, 3), 200, size=16)
    refused(r"00000000.png' has 16 x 16 pixels, but it must have the real images' 8 x 8", mix=large)
    (tmp_path / "large" / RECIPE).unlink()
    (tmp_path / "large" / STATE).mkdir()
    refused(r"whose images are not all drawn yet, .* kind-jax synthesize command that began it goes on", mix=large)
    for settings, message in (
        ({"source": "latents", "mix": "x"}, "data.mix is 'x', but it must be None for data.source 'latents'"),
        ({"mix_ratio": 2.0}, "data.mix_ratio is 2.0, but it must be 1 where data.mix is None"),
        ({"mix": "x", "mix_ratio": 0.0}, "data.mix_ratio is 0.0, but it must be above 0"),
    ):
        with pytest.raises(UserError, match=message):
            DataConfig(**settings)
