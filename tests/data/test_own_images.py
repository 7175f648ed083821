"""Folders that a user brings: a share held out, classes by name, what is said of them."""

import shutil

import numpy as np
import pytest
from image_folders import config, files_of, fill
from PIL import Image

from kind_jax.config import DataConfig
from kind_jax.data import dataset as dataset_module
from kind_jax.data.dataset import open_dataset
from kind_jax.data.look import look
from kind_jax.data.summary import summary
from kind_jax.errors import UserError


@pytest.fixture
def root(tmp_path):
    return fill(tmp_path / "images")


def test_a_share_is_held_out_of_every_class_and_training_never_sees_it(root, tmp_path, monkeypatch):
    shutil.rmtree(root / "val")
    shutil.copytree(root / "train", tmp_path / "renamed")
    (root / "train" / "ant" / "alone").mkdir()
    for memory in (0, 1 << 30):
        monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", memory)
        train, test = (open_dataset(config(root, held_out=0.3), split) for split in ("train", "test"))
        assert (train.counts, test.counts) == ((6, 6, 6), (2, 2, 2))
        assert train.class_names == test.class_names
        assert train.fingerprint["held_out"]["share"] == 0.3
        seen = {image.tobytes() for image in train.source.gather(range(18))["image"]}
        assert not seen & {image.tobytes() for image in test.source.gather(range(6))["image"]}
        if memory == 0:
            chosen = files_of(test.source)
    # The choice follows from the paths alone: other folders, and another selection of classes, hold out the same.
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    elsewhere = open_dataset(config(tmp_path / "renamed", held_out=0.3, classes=("bee", 0)), "test")
    assert files_of(elsewhere.source) == [name for name in chosen if not name.startswith("ant/")]
    with pytest.raises(UserError, match=r"neither test/ nor val/"):
        open_dataset(config(root), "test")
    (root / "test").mkdir()
    with pytest.raises(UserError, match=r"data.held_out is 0.3, but it must be 0 for data.path .*, which has test/"):
        open_dataset(config(root, held_out=0.3), "train")
    with pytest.raises(UserError, match=r"data.held_out is 0.3, but it must be 0 for data.source 'digits'"):
        DataConfig(source="digits", held_out=0.3)


def test_classes_are_chosen_by_name_and_an_empty_one_may_be_left_out(root):
    (root / "train" / "empty").mkdir()
    by_name = open_dataset(config(root, classes=("bee", "Zebra")), "train")
    by_number = open_dataset(config(root, classes=(2, 0)), "train")
    assert by_name.class_names == ("bee", "Zebra")
    assert by_name.fingerprint == by_number.fingerprint
    with pytest.raises(UserError, match=r"'wasp', but the classes of .* are 0 to 3, by name: Zebra, ant, bee, empty"):
        open_dataset(config(root, classes=("wasp",)), "train")
    with pytest.raises(UserError, match=r"names the class 2 \('bee'\) twice"):
        open_dataset(config(root, classes=("bee", 2)), "train")
    with pytest.raises(UserError, match=r"'empty' in .* has no file .* data.classes can leave a class out"):
        open_dataset(config(root), "train")


def test_the_summary_names_what_is_there_and_what_is_not(root):
    for number in range(1, 8):
        next((root / "train" / "bee").glob(f"{number}.*")).unlink()
    (root / "train" / "ant" / "notes.txt").touch()
    (root / "train" / "ant" / "broken.png").touch()
    (root / "train" / "cover.png").touch()
    lines = summary(open_dataset(config(root, skip_bad=0.1), "train"))
    assert lines[0] == "data: 17 training images of 3 classes, 12 x 12 x 3: Zebra (8), ant (8), bee (1)"
    assert lines[1:4] == [
        "left out: 1 files or records that cannot be read",
        "left out: 1 files that are no images by their names",
        "left out: images beside the folders of the classes, like cover.png",
    ]
    assert lines[4].startswith("warning: fewer than 20 images: bee (1), Zebra (8), ant (8); ")


def test_a_look_tells_sizes_and_colours(root, tmp_path):
    seen = look(config(root))
    assert [name for name, _ in seen.classes] == ["Zebra", "ant", "bee"]
    assert seen.channels == 3
    folder = tmp_path / "grey" / "dots"
    folder.mkdir(parents=True)
    for i, size in enumerate([(28, 28), (30, 40), (33, 32)]):
        shades = np.random.default_rng(i).integers(0, 256, (size[1], size[0]), np.uint8)
        Image.fromarray(np.repeat(shades[..., None], 3, axis=-1)).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    seen = look(config(tmp_path / "grey"))
    assert (seen.sides, seen.square, seen.channels, seen.looked_at) == ((28, 30, 32), False, 1, 3)
    assert seen.classes == (("dots", 4),)
