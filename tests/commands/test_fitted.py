"""Data that a command line chooses decide what of the model follows from them."""

import dataclasses

import pytest
import tiny

from kind_jax.cli import main
from kind_jax.commands.fitted import fitted
from kind_jax.errors import UserError
from kind_jax.train.run import load_config


def _with(config, **data):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **data))


def test_classes_and_images_follow_from_the_data(capsys):
    config = _with(tiny.CONFIG, classes=(3, 7))
    found = fitted(config, ["--data.classes", "3", "7"])
    assert found.model.num_classes == 2
    assert dataclasses.replace(found, model=config.model) == config  # and nothing else
    assert "note: the data decide: model.num_classes is 2 (10 before)" in capsys.readouterr().out
    textures = fitted(_with(tiny.CONFIG, source="textures"), ["--data.source=textures"])
    assert textures.model.num_classes == 8


def test_what_is_given_stays(capsys):
    config = _with(tiny.CONFIG, classes=(3, 7))
    assert fitted(config, []) is config
    assert fitted(tiny.CONFIG, ["--data.source", "digits"]) is tiny.CONFIG
    kept = fitted(config, ["--data.classes", "3", "7", "--model.num-classes", "10"])
    assert kept is config  # which the trainer refuses, naming both
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"data.classes"):
        fitted(_with(tiny.CONFIG, classes=("none",)), ["--data.classes", "none"])


def test_the_same_command_goes_on(tmp_path, capsys):
    steps = ("--train.steps", "2", "--train.batch", "8", "--model.width", "16", "--model.heads", "2")
    line = ["train", "--config", "digits", "--data.classes", "3", "7", *steps, "--workdir", str(tmp_path / "run")]
    assert main([*line, "--stop-after", "1"]) == 0
    assert main(line) == 0
    assert "finished at step 2 of 2" in capsys.readouterr().out
    assert load_config(tmp_path / "run").model.num_classes == 2
