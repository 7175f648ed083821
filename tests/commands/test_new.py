"""From a folder of images to a config that trains: what is seen, what is proposed, what is refused."""

import re

import numpy as np
import pytest
import tiny
from PIL import Image

from kind_jax import cli
from kind_jax.config import load_file
from kind_jax.config.presets import preset, presets
from kind_jax.config.written import as_python
from kind_jax.data.dataset import open_dataset
from kind_jax.tasks import task_of
from kind_jax.train import pace


@pytest.fixture
def images(tmp_path):
    """Two classes, one with a name of another script, of colour pictures of several sizes; a file that is none."""
    rng = np.random.default_rng(0)
    for name, sides in (("red panda", (30, 34)), ("Füchse 狐", (30, 60))):
        folder = tmp_path / "my images" / name
        folder.mkdir(parents=True)
        for i in range(30):
            side = sides[i % 2]
            Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"{i} a.png")
        (folder / "notes.txt").write_text("none")
    return tmp_path / "my images"


@pytest.fixture
def timed(monkeypatch):
    """A machine that takes half a second for a step."""
    monkeypatch.setattr(pace, "measure", lambda task, dataset: pace.Pace(first=30.0, step=0.5))


def test_what_is_proposed_trains_and_is_explained(images, tmp_path, timed, capsys):
    assert cli.main(["new", str(images), "--out", str(tmp_path / "mine"), "--minutes", "12"]) == 0
    told = capsys.readouterr().out
    for line in (
        "images: shorter sides of 30 to 60 pixels, 32 at the median, in colour, squares (60 looked at); trained on at",
        "held out: 10% of each class",
        "data: 54 training images of 2 classes, 32 x 32 x 3: Füchse 狐 (27), red panda (27)",
        "left out: 2 files that are no images",
        "a step takes 500 ms here, and the first 30 s more, so 1,164 fit 12 minutes: 1,100 steps",
        f"kind-jax train --config {tmp_path}/mine/config.py --workdir {tmp_path}/mine/run",
    ):
        assert line in told
    config = load_file(tmp_path / "mine" / "config.py")
    expected = preset("images", {"data.path": str(images)})
    assert config == tiny.change(expected, train={"steps": 1100})
    source = (tmp_path / "mine" / "config.py").read_text()
    assert re.search(r"steps=1100,  # about 12 minutes", source)
    assert "# there is no test split" in source
    with Image.open(tmp_path / "mine" / "images.png") as sheet:
        assert sheet.size == (8 * 64 + 7 * 2, 2 * 64 + 2)


def test_smaller_pictures_are_proposed_where_larger_ones_cannot_be_learnt(tmp_path, monkeypatch, capsys):
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (48, 48), (i, 0, 0)).save(tmp_path / "images" / name / f"{i}.png")
    monkeypatch.setattr(pace, "measure", lambda task, data: pace.Pace(first=0.0, step=data.image_shape[0] / 100))

    def proposed(*more):
        out = tmp_path / f"mine{len(more)}{''.join(more)[-2:]}"
        assert cli.main(["new", str(tmp_path / "images"), "--out", str(out), *more]) == 0
        return load_file(out / "config.py"), capsys.readouterr().out

    config, told = proposed()
    assert (config.model.size, config.data.size, config.train.steps) == (32, 32, 1500)
    assert "1,062 steps fit 10 minutes at 48 x 48, fewer than the 4,000 that pictures need" in told
    assert proposed("--size", "48")[0].train.steps == 1000
    config, told = proposed("--minutes", "38")
    assert (config.model.size, config.train.steps) == (48, 4000)
    assert "smaller ones are proposed" not in told


def test_a_slow_machine_and_few_images_are_said(images, tmp_path, timed, capsys):
    args = [
        "new",
        str(images),
        "--out",
        str(tmp_path / "m"),
        "--minutes",
        "2",
        "--classes",
        "red panda",
        "--size",
        "16",
    ]
    assert cli.main(args) == 0
    told = capsys.readouterr().out
    assert "warning: there is one class alone" in told
    assert "needs 1000 steps or more, about 10 minutes here" in told
    config = load_file(tmp_path / "m" / "config.py")
    assert (config.train.steps, config.model.size, config.model.num_classes) == (1000, 16, 1)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("nowhere", "--out", "o"), "IMAGES is 'nowhere', but it must be a folder of images."),
        (("empty", "--out", "o"), "has no folder and no file that ends in"),
        (("my images", "--out", "my images/o"), "inside the images; choose a folder beside them."),
        (("my images", "--out", "taken"), "--out is 'taken', which has a config.py already"),
        (("my images", "--out", "o", "--minutes", "0"), "--minutes is 0.0, but it must be above 0"),
        (("my images", "--out", "o", "--minutes", "nan"), "--minutes is nan, but it must be above 0"),
        (("my images", "--out", "o", "--classes", "wolf"), "'wolf'"),
        (("my images", "--out", "o", "--size", "0"), "data.size"),
    ],
)
def test_what_cannot_be(images, tmp_path, monkeypatch, capsys, args, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.py").write_text("mine")
    assert cli.main(["new", *args]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    assert (tmp_path / "taken" / "config.py").read_text() == "mine"


@pytest.mark.parametrize("name", [name for name in presets() if name != "images"])
def test_a_config_as_python_is_that_config(name, tmp_path):
    config = preset(name)
    (tmp_path / "config.py").write_text(as_python(config, 'a \\ "headline"', {"data.size": "pixels", "train": "long"}))
    assert load_file(tmp_path / "config.py") == config


def test_a_pace_is_that_of_real_steps():
    task, dataset = task_of(tiny.CONFIG), open_dataset(tiny.CONFIG.data, "train")
    found = pace.measure(task, dataset)
    assert 0 < found.step < found.first
    assert found.steps(found.first + 10.5 * found.step) == 10
    assert found.steps(0.0) == 0
