"""configs/images.py: what it makes of a folder, and what the user decides."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kind_jax as kj
from kind_jax.cli import main
from kind_jax.commands.given import settings_given
from kind_jax.commands.train import Arguments
from kind_jax.config.capacity import check_capacity
from kind_jax.errors import UserError


def fill(root, side, *, colour, classes=3, count=4):
    rng = np.random.default_rng(0)
    for label in range(classes):
        folder = root / f"kind {label}"
        folder.mkdir(parents=True)
        for i in range(count):
            shape = (side, side, 3) if colour else (side, side)
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / f"{i}.png")
    return str(root)


@pytest.mark.parametrize(
    ("side", "colour", "sizes"),
    [
        (28, False, (28, 1, 4, 128)),
        (32, True, (32, 3, 4, 128)),
        (45, True, (40, 3, 5, 128)),
        (64, True, (64, 3, 8, 192)),
        (300, True, (64, 3, 8, 192)),
        (8, False, (8, 1, 1, 128)),
    ],
)
def test_sizes_follow_from_the_images(tmp_path, side, colour, sizes):
    config = kj.preset("images", {"data.path": fill(tmp_path / "x", side, colour=colour)})
    model = config.model
    assert (model.size, model.channels, model.patch, model.width) == sizes
    assert (config.data.size, config.data.channels, model.num_classes) == (*sizes[:2], 3)
    assert config.data.held_out == 0.1
    assert check_capacity(config, strict=True) == []


def test_a_path_may_be_one_of_pathlib(tmp_path):
    path = fill(tmp_path / "x", 8, colour=False)
    assert kj.preset("images", {"data.path": Path(path)}) == kj.preset("images", {"data.path": path})
    with pytest.raises(UserError, match=r"^data.size is '16', but it must be a valid integer"):
        kj.preset("images", {"data.path": path, "data.size": "16"})


def test_what_is_given_wins_and_the_rest_follows(tmp_path):
    path = fill(tmp_path / "x", 40, colour=True)
    (tmp_path / "x" / "test").mkdir()
    (tmp_path / "x").rename(tmp_path / "parts")
    (tmp_path / "x" / "train").mkdir(parents=True)
    for name in ("kind 0", "kind 1", "kind 2", "test"):
        (tmp_path / "parts" / name).rename(tmp_path / "x" / ("test" if name == "test" else f"train/{name}"))
    given = {"data.path": path, "data.size": 16, "data.classes": ("kind 2", 0), "model.patch": 4, "train.steps": 7}
    config = kj.preset("images", given)
    assert (config.model.size, config.model.num_classes, config.model.patch, config.train.steps) == (16, 2, 4, 7)
    assert config.data.held_out == 0  # the folder has a test split
    with pytest.raises(UserError, match=r"given as 'model.depht', but there is none"):
        kj.preset("images", {"data.path": path, "model.depht": 3})


def test_settings_of_a_command_line_have_their_types():
    args = "--config images --data.path 7 --data.size=16 --data.channels 1 --data.classes 3 flags --data.flip"
    args += " --no-data.flip --model.patch x --data.skip-bad 0.5 --workdir w"
    assert settings_given(Arguments, args.replace("--data.flip --no-data.flip", "--data.flip").split()) == {
        "data.path": "7", "data.size": 16, "data.channels": 1, "data.classes": (3, "flags"), "data.flip": True,
        "data.skip_bad": 0.5,
    }  # fmt: skip


@pytest.mark.slow  # README's own line trains as well: tests/test_docs_commands.py
def test_the_command_line_trains_on_a_folder(tmp_path, capsys):
    run = ["train", "--config", "images", "--workdir", str(tmp_path / "run"), "--model.depth", "1", "--train.batch=8"]
    assert main([*run, "--data.path", fill(tmp_path / "x", 16, colour=True), "--stop-after", "1"]) == 0
    out = capsys.readouterr().out
    assert "data: 9 training images of 3 classes, 16 x 16 x 3: kind 0 (3), kind 1 (3), kind 2 (3)" in out
    assert "warning: fewer than 20 images" in out


def test_the_command_line_refuses_no_folder(tmp_path, capsys):
    assert main(["train", "--config", "images", "--workdir", str(tmp_path / "none")]) == 2
    assert "data.path is None" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
