"""A fraction of the training images: nested, of every class, and nothing of what is held out."""

import numpy as np
import pytest
from image_folders import config, files_of, fill

from kind_jax.config import DataConfig, change
from kind_jax.data import dataset as dataset_module
from kind_jax.data.dataset import open_dataset
from kind_jax.errors import UserError

SHARES = (0.01, 0.2, 0.5, 0.8)


@pytest.mark.parametrize("memory", [0, 1 << 30])  # read record by record, and held in memory
def test_a_smaller_fraction_is_part_of_a_larger_one(digits_root, memory, monkeypatch):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", memory)
    digits = DataConfig(path=str(digits_root), validation=0.2)
    whole, held_out = (open_dataset(digits, split) for split in ("train", "validation"))

    def images(dataset):
        return {image.tobytes() for image in dataset.source.gather(range(len(dataset.source)))["image"]}

    seen, smaller = images(whole), set()
    assert "fraction" not in whole.fingerprint
    for share in SHARES:
        part = open_dataset(change(digits, fraction=share), "train")
        found = images(part)
        assert smaller < found < seen
        assert not found & images(held_out)
        if memory:
            assert whole.counts is not None
            assert part.counts == tuple(max(1, round(share * count)) for count in whole.counts)
        else:
            assert len(part.source) == round(share * len(whole.source))
        assert part.fingerprint["fraction"]["share"] == share
        assert part.fingerprint["records"] == len(part.source)
        smaller = found
    for split in ("validation", "test"):
        same = open_dataset(change(digits, fraction=0.2), split)
        assert same.fingerprint == open_dataset(digits, split).fingerprint


def test_the_files_of_a_folder_are_chosen_by_their_paths(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    root = fill(tmp_path / "images")
    for number in range(1, 8):
        next((root / "train" / "bee").glob(f"{number}.*")).unlink()
    half = open_dataset(config(root, fraction=0.5), "train")
    assert half.counts == (4, 4, 1)  # a class of one image keeps it
    elsewhere = fill(tmp_path / "elsewhere")
    chosen = files_of(open_dataset(config(elsewhere, fraction=0.5, classes=("ant",)), "train").source)
    assert chosen == [name for name in files_of(half.source) if name.startswith("ant/")]
    np.testing.assert_array_equal(half.source.gather(range(9))["label"], [0] * 4 + [1] * 4 + [2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fraction": 0.0}, r"data.fraction is 0.0, but it must be above 0 and at most 1"),
        ({"fraction": 1.5}, r"data.fraction is 1.5, but it must be above 0 and at most 1"),
        ({"source": "latents", "fraction": 0.5}, r"data.fraction is 0.5, but it must be 1 for data.source 'latents'"),
    ],
)
def test_impossible_fractions_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        DataConfig(**settings)
