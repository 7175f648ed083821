"""From a run to a training set that it draws, and to a run that trains on it beside real images."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from kind_jax.cli import main
from kind_jax.deploy.bundle import open_bundle
from kind_jax.train.run import load_config

CONFIG = str(Path(__file__).parents[2] / "chaos" / "config.py")
SHORT = ["--train.steps", "4", "--train.checkpoint-every", "2", "--train.sample-every", "0", "--sampler.steps", "2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run, an artifact of it, and the images that it drew."""
    folder = tmp_path_factory.mktemp("synthesize")
    assert main(["train", "--config", CONFIG, "--workdir", str(folder / "run"), *SHORT, "--stop-after", "1"]) == 0
    assert main(["export", str(folder / "run"), "--out", str(folder / "art")]) == 0
    assert main(["synthesize", str(folder / "run"), "--per-class", "16", "--out", str(folder / "drawn")]) == 0
    return folder


def test_a_run_and_its_artifact_draw_the_same_and_say_so(place, tmp_path, capsys):
    out = str(tmp_path / "threes")
    line = ["synthesize", str(place / "art"), "--classes", "3", "--per-class", "4", "--out", out]
    assert main(line) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"^4 images, 4 of each of 1 classes, in \d+ s \(\d+\.\d images/s\): step 1, \w+ weights, euler 2 st", said, re.M
    )
    for name in ("images", "recipe", "grid"):
        assert re.search(rf"^  {name} +{re.escape(out)}/\S+$", said, re.M)
    for path in sorted((tmp_path / "threes" / "train" / "3").iterdir()):
        assert path.read_bytes() == (place / "drawn" / "train" / "3" / path.name).read_bytes()
    with Image.open(tmp_path / "threes" / "samples.png") as grid:
        assert grid.size == (48, 4 * 48 + 3 * 2)
    assert json.loads((tmp_path / "threes" / "synthesis.json").read_text())["model_name"] == "art"
    assert main(line) == 0
    assert "complete already, nothing was drawn" in capsys.readouterr().out
    assert main([*line, "--seed", "5"]) == 2
    assert "was begun with seed 0, but it is 5 now; use another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--per-class", "0"], "--per-class is 0, but it must be 1 or more."),
        ([], "--per-class is missing, but it must say how many images of each class are drawn."),
        (["--per-class", "2", "--classes", "11"], "a class of --classes is 11, but it must be between 0 and 9."),
        (["--per-class", "2", "--attempts", "3"], "--attempts is 3, but it must be given with --agree alone."),
        (["--per-class", "2", "--agree", "{run}"], "is of the kind 'diffusion', but it must be 'classification' here"),
        (["--per-class", "2", "--out", "{art}/x"], "inside the artifact"),
    ],
)
def test_mistakes_are_explained(place, args, message, tmp_path, capsys):
    args = [arg.format(run=place / "run", art=place / "art") for arg in args]
    out = [] if "--out" in args else ["--out", str(tmp_path / "out")]
    assert main(["synthesize", str(place / "run"), *args, *out]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_trains_on_both_and_goes_on_with_both_alone(place, tmp_path, capsys, monkeypatch):
    (tmp_path / "moved").symlink_to(place / "drawn")
    monkeypatch.chdir(tmp_path)
    line = ["train", "--config", CONFIG, "--workdir", "mixed", *SHORT, "--data.fraction", "0.05"]
    mixed = [*line, "--data.mix", str(place / "drawn"), "--data.mix-ratio", "1.5"]
    assert main([*mixed, "--stop-after", "2"]) == 0
    said = re.search(
        r"of these (\d+) are real and (\d+) synthetic; real: 0 \(\d\), .*; synthetic: ", capsys.readouterr().out
    )
    assert said is not None
    assert int(said[2]) == int(1.5 * int(said[1]) + 0.5)
    assert load_config(Path("mixed")).data.mix == str(place / "drawn")
    assert main([*line, "--data.mix-ratio", "1"]) == 2
    assert f"data.mix was '{place / 'drawn'}', now None" in capsys.readouterr().err
    assert main([*mixed[:-1], "2"]) == 2
    assert "data.mix_ratio was 1.5, now 2.0" in capsys.readouterr().err
    mixed[mixed.index(str(place / "drawn"))] = "moved"
    assert main(mixed) == 0
    assert "resuming mixed at step 2" in capsys.readouterr().out
    assert main([*mixed[:4], "moved/inside", *mixed[5:]]) == 2
    assert "inside data.mix" in capsys.readouterr().err
    # What is given away names the images, and does not tell where they were; real images are found without them.
    assert main(["export", "mixed", "--out", "art"]) == 0
    assert str(place) not in Path("art/kind.json").read_text()
    data = open_bundle("art").config.data
    assert (data.mix, data.mix_ratio, data.fraction) == ("moved", 1.5, 0.05)
    Path("mean.py").write_text("def get_extractor():\n    return lambda x: x[:, :2, :2, 0].reshape(len(x), -1)\n")
    assert main(["evaluate", "art", "--count", "16", "--batch", "16", "--extractor", "mean.py"]) == 0
