"""What changes around a run of somebody's own pictures is said, never guessed."""

import errno
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from kind_jax import cli
from kind_jax.commands import compose, report
from kind_jax.config import DataConfig
from kind_jax.config.presets import preset
from kind_jax.data.dataset import open_dataset
from kind_jax.errors import UserError
from kind_jax.evaluating import judge as judges
from kind_jax.train import run

CLASSES = ("Zebra", "ant", "bee")


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            image = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
            image.save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def data(root, **settings):
    return DataConfig(source="folder", path=str(root), size=12, **settings)


def model_of(root, *names):
    """What commands look at of a model of these classes, whose pictures are in ``root``."""
    settings = tiny.change(tiny.CONFIG, data=vars(data(root)), model={"size": 12, "channels": 3})
    return types.SimpleNamespace(config=settings, class_names=names)


def test_a_report_needs_every_class_of_the_model(root):
    with pytest.raises(UserError, match=r"lacks wasp \(1\); measure .*0,2.*, or compose or shrink the model"):
        report._check_data(model_of(root, "Zebra", "wasp", "bee"))
    with pytest.raises(UserError, match=r"the number of training images that the judge learns from is 21, but 32 feat"):
        report._check_data(model_of(root, *CLASSES))


def test_calibration_images_go_by_name(root, monkeypatch):
    monkeypatch.setattr("kind_jax.deploy.importance.estimate", lambda bundle, images, labels, classes: labels)
    labels = compose._importance(model_of(root, "bee", "Zebra", "ant"), (0, 2))
    assert labels.tolist() == [2] * 8 + [0] * 8  # ant and bee, in the order of the folder
    with pytest.raises(UserError, match=r"lacks wasp.*; .*let --data.path name one that has"):
        compose._importance(model_of(root, "bee", "wasp"), (1,))


def test_a_run_inside_its_pictures_is_refused(root, tmp_path, monkeypatch):
    config = model_of(root).config
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match=r"--workdir is 'runs/a', inside data.path, .*images"):
        run.check(Path("runs/a"), config)
    assert run.check(tmp_path / "a", config) == []


def test_a_path_that_is_no_text_is_refused_before_training(tmp_path):
    with pytest.raises(UserError, match="whole path must be text in UTF-8"):
        run.check(tmp_path / os.fsdecode(b"n\xe4me"), tiny.CONFIG)


@pytest.mark.parametrize("classes", [("bee,Zebra",), ("bee", "0"), ("2,0",)])
def test_several_classes_in_one_text(root, classes):
    assert open_dataset(data(root, classes=classes), "train").class_names == ("bee", "Zebra")
    assert open_dataset(data(root, classes=("1-2",)), "train").class_names == ("ant", "bee")
    with pytest.raises(UserError, match="class"):
        open_dataset(data(root, classes=("bee,wasp",)), "train")


def test_the_preset_for_pictures_is_for_folders():
    with pytest.raises(UserError, match=r"data.source is 'digits', but it must be 'folder' with --config images"):
        preset("images", {"data.source": "digits"})


def test_numbers_of_a_sampler_are_numbers():
    code = (
        "from kind_jax.config import SamplerConfig\n"
        "from kind_jax.errors import UserError\n"
        "for settings in ({'steps': 1.5}, {'guidance': '2'}, {'steps': True}):\n"
        "    try: SamplerConfig(method='euler', **settings)\n"
        "    except UserError as e: print(e)\n"
    )  # in a process without the types that tests check
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100).stdout
    found = re.findall(r"sampler.(\w+) is (.*), but it must be", said)
    assert found == [("steps", "1.5"), ("guidance", "'2'"), ("steps", "True")]


def test_a_judge_that_cannot_be_kept_serves_all_the_same(monkeypatch, tmp_path, capfd):
    def refuse(self, path):
        raise UserError("no space")

    monkeypatch.setattr(judges.Judge, "save", refuse)
    images = np.zeros((8, 8, 8, 1), np.float32)
    labels = np.arange(8, dtype=np.int32) % 2
    found = judges.train_judge(images, labels, 2, seed=0, steps=1, cache=tmp_path / "judge", bound=0.0)
    assert found.held_out.images == 2
    assert "not kept for the next time: no space" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("verb", "error", "code", "said"),
    [
        ("inspect", BrokenPipeError(), 141, ""),
        ("train", BrokenPipeError(), 75, "the same command goes on from the last checkpoint"),
        ("sample", OSError(errno.ENOSPC, "No space left on device"), 2, "output cannot be written to"),
    ],
)
def test_output_that_nobody_takes_is_no_success(verb, error, code, said, monkeypatch, capfd):
    def fail(verb, args):
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    monkeypatch.setattr(cli, "_mute", lambda: None)
    assert cli.main([verb]) == code
    assert said in capfd.readouterr().err


def test_a_full_output_is_one_sentence():
    artifact = Path(__file__).parents[1] / "fixtures" / "plain_artifact"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kind_jax", "export", artifact, "--help"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=100,
        )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "output cannot be written to" in done.stderr
