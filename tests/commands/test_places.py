"""A run knows where its data are, wherever it is used from; what is given away does not tell."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kind_jax.cli import main
from kind_jax.config import Config, change
from kind_jax.deploy.bundle import open_bundle
from kind_jax.train.run import load_config, save_config, with_places

SETTINGS = [
    "--data.source", "folder", "--data.size", "8", "--data.channels", "1", "--model.num-classes", "2",
    "--train.steps", "4", "--train.checkpoint-every", "0", "--sampler.steps", "2",
]  # fmt: skip


def test_a_path_given_relative_is_one_from_where_the_run_was_begun(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, wanted in (
        ("images", str(tmp_path / "images")), ("../a", str(tmp_path.parent / "a")), ("~/x", str(tmp_path / "home/x")),
        ("/here/", "/here"), ("gs://bucket/../x", "gs://bucket/../x"), (None, None), ("", ""),
    ):  # fmt: skip
        data = with_places(change(Config(), data={"path": given, "vae": given})).data
        assert (data.path, data.vae) == (wanted, wanted)


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """Folders a and b; in a, images and a run on them that was stopped at step 2."""
    a, b = tmp_path / "a", tmp_path / "b"
    b.mkdir()
    for number, split in enumerate(("train", "test")):
        for name in ("ant", "bee"):
            (a / "images" / split / name).mkdir(parents=True)
            for i in range(20):
                pixels = np.random.default_rng([number, i, len(name)]).integers(0, 256, (8, 8), np.uint8)
                Image.fromarray(pixels).save(a / "images" / split / name / f"{i}.png")
    monkeypatch.chdir(a)
    config = str(Path(__file__).parents[2] / "chaos" / "config.py")
    line = ["train", "--config", config, "--workdir", "run", *SETTINGS]
    assert main([*line, "--data.path", "images", "--stop-after", "2"]) == 0
    line[line.index("run")] = str(a / "run")
    return a, b, line


@pytest.mark.slow
def test_a_run_begun_in_one_folder_goes_on_in_another(begun, tmp_path, monkeypatch, capsys):
    a, b, line = begun
    monkeypatch.chdir(b)
    code = b / "mean.py"
    code.write_text("def get_extractor():\n    return lambda x: x[:, :2, :2, 0].reshape(len(x), -1)\n")
    measured = ["--count", "16", "--batch", "16", "--extractor", str(code)]
    assert main(["evaluate", str(a / "run"), *measured]) == 0
    assert load_config(a / "run").data.path == str(a / "images")
    assert main([*line, "--data.path", "../a/images"]) == 0
    assert "resuming" in capsys.readouterr().out
    assert load_config(a / "run").data.path == str(a / "images")

    assert main(["export", str(a / "run"), "--out", "art"]) == 0
    assert str(tmp_path) not in (b / "art" / "kind.json").read_text()
    assert open_bundle(b / "art").config.data.path == "images"
    capsys.readouterr()
    assert main(["evaluate", "art", *measured]) == 2
    assert capsys.readouterr().err.startswith("error: data.path is 'images', but")
    assert main(["evaluate", "art", *measured, "--data.path", "../a/images"]) == 0
    found = [json.loads((p / "evaluation.json").read_text()) for p in (a / "run/evaluation", b / "art_evaluation")]
    assert found[0]["reference"] == found[1]["reference"]
    composed = ["compose", "art", "--classes", "1", "--criterion", "loss", "--max-params", "1M"]
    assert main([*composed, "--out", "c", "--data.path", "../a/images"]) == 0
    assert main([*composed, "--out", "d"]) == 2


def test_a_run_of_before_that_has_a_relative_path_opens_where_it_was_begun(begun, monkeypatch, capsys):
    a, _, line = begun
    save_config(a / "run", change(load_config(a / "run"), data={"path": "images"}))
    monkeypatch.chdir(a)
    assert main([*line, "--data.path", "images", "--stop-after", "3"]) == 0
    assert load_config(a / "run").data.path == str(a / "images")
