"""Runs of CoCa on a folder of images with captions: the one trainer, and the verbs that are its own."""

import dataclasses
import json

import chex
import numpy as np
import pytest
from PIL import Image

from kind_jax.captioning.config import CaptionRun, TextConfig
from kind_jax.cli import main
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig, change
from kind_jax.config.coca import CoCaConfig, TowerConfig
from kind_jax.deploy.bundle import export, open_bundle
from kind_jax.distillation.optima_config import OptimaConfig, optima_run
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train.checkpoint import load_collections
from kind_jax.train.loop import train
from kind_jax.train.metrics import read_metrics
from kind_jax.train.run import load_config

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "black": (0, 0, 0)}
TOWER = TowerConfig(width=8, depth=1, heads=2, hidden=16)


def write_images(folder, per_colour):
    """Plain squares in a folder a colour, some with two captions."""
    lines = []
    for colour, rgb in COLOURS.items():
        (folder / colour).mkdir(parents=True)
        for i in range(per_colour):
            pixels = np.clip(np.asarray(rgb) + 4 * i, 0, 255).astype(np.uint8)
            Image.fromarray(np.broadcast_to(pixels, (8, 8, 3))).save(folder / colour / f"{i}.png")
            lines.append({"file_name": f"{colour}/{i}.png", "text": colour})
            if i == 0:
                lines.append({"file_name": f"{colour}/{i}.png", "text": f"so {colour}"})
    (folder / "captions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def settings(folder, depth=1, **train):
    towers = dict.fromkeys(("image", "text", "multimodal"), dataclasses.replace(TOWER, depth=depth))
    return CaptionRun(
        model=CoCaConfig(size=8, channels=3, patch=4, context=12, embedding=8, queries=2, pooler_heads=2, **towers),
        data=DataConfig(source="folder", path=str(folder), size=8),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        train=TrainConfig(
            **{"steps": 4, "batch": 8, "ema": None, "log_every": 1, "checkpoint_every": 2, "sample_every": 4, **train}
        ),
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_images(folder / "train", 4)
    write_images(folder / "test", 2)
    return folder


@pytest.fixture(scope="module")
def teacher(pictures, tmp_path_factory):
    """A run of two layers a tower."""
    run = tmp_path_factory.mktemp("coca") / "run"
    train(settings(pictures, depth=2), run)
    return run


def test_a_run_logs_and_shows(teacher):
    lines = read_metrics(teacher / "metrics.jsonl")
    assert {"caption", "contrastive", "token_accuracy", "temperature"} <= set(lines[0])
    assert {"test_caption_loss", "test_text_r1", "test_image_r1"} <= set(lines[-1])
    np.testing.assert_allclose(lines[0]["loss"], lines[0]["contrastive"] + 2 * lines[0]["caption"], rtol=1e-5)
    assert (teacher / "samples" / "step_0000004.png").is_file()


def test_verbs(teacher, tmp_path, capsys):
    """What an artifact of the run says about images, and how it is measured."""
    export(open_bundle(teacher), tmp_path / "art")
    chex.assert_trees_all_equal(open_bundle(tmp_path / "art").collections, open_bundle(teacher).collections)
    data = ["--data.path", load_config(teacher).data.path]
    assert main(["evaluate", str(tmp_path / "art"), "--beams", "2", *data]) == 0
    found = json.loads((tmp_path / "art_evaluation" / "evaluation.json").read_text())
    assert {"zero_shot_top1", "bleu4", "cider", "text_r1", "image_r10"} <= set(found["figures"])
    path = load_config(teacher).data.path
    image = f"{path}/test/red/0.png"
    assert (
        main(["caption", str(teacher), "--images", image, f"{path}/test/blue", "--out", str(tmp_path / "c.png")]) == 0
    )
    first = (tmp_path / "c.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["image"] == image
    assert main(["report", str(teacher), "--out", str(tmp_path / "r.html")]) == 0
    assert "CIDEr" in (tmp_path / "r.html").read_text()
    assert main(["inspect", str(teacher)]) == 0
    capsys.readouterr()
    for verb in ("sample", "play"):
        assert main([verb, str(teacher)]) == 2
        assert "kind-jax caption describes images" in capsys.readouterr().err


@pytest.mark.slow
def test_a_student_goes_on_to_the_next_arm(teacher, pictures, tmp_path):
    """Killed within a round and between rounds, a run draws the same modules and ends with the same weights."""
    config = optima_run(settings(pictures, steps=6), OptimaConfig(teacher=str(teacher), round=2, policy="thompson"))
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop_after=3)
    train(config, tmp_path / "parts", stop_after=4)
    train(config, tmp_path / "parts")
    saved = load_config(tmp_path / "whole")
    names = task_of(saved).shapes()
    a, b = (
        load_collections(tmp_path / f / "checkpoints", 6, task_of(saved), weights="raw") for f in ("whole", "parts")
    )
    assert {"projectors", "memory"} < set(names) == set(a)
    chex.assert_trees_all_equal(a, b)
    turns = [
        [line for line in read_metrics(tmp_path / f / "metrics.jsonl") if "arm" in line] for f in ("whole", "parts")
    ]
    assert [line["step"] for line in turns[0]] == [0, 2, 4, 6]
    assert turns[0] == turns[1]
    bundle = open_bundle(tmp_path / "whole", kind=CaptionRun)  # a plain model
    assert set(bundle.collections) == {"learngenes", "tailors", "params"}
    assert main(["report", str(tmp_path / "whole")]) == 0
    assert "What was distilled" in (tmp_path / "whole" / "report.html").read_text()


def test_a_run_begins_from_another(teacher, pictures, tmp_path):
    config = str(tmp_path / "c.py")
    with open(config, "w") as file:
        file.write("from captioning.test_runs import settings\n")
        file.write(f"def get_config(): return settings({str(pictures)!r}, steps=1, sample_every=0)\n")
    assert main(["train", "--config", config, "--init", str(teacher), "--workdir", str(tmp_path / "run")]) == 0
    assert load_config(tmp_path / "run").model.text.depth == 2


def test_bad_input(teacher, pictures, tmp_path, capsys):
    config = settings(pictures)
    with pytest.raises(UserError, match=r"model.vocabulary is 300, but text.tokenizer 'bytes' has 259"):
        train(change(config, model={"vocabulary": 300}), tmp_path / "a")
    with pytest.raises(UserError, match=r"model.context is 6, but it must be 10 or more for the caption .so black."):
        train(change(config, model={"context": 6}), tmp_path / "b")
    with pytest.raises(UserError, match="split of the data set digits has no captions"):
        train(change(config, data={"source": "digits"}, model={"channels": 1}), tmp_path / "c")
    with pytest.raises(UserError, match=r"text.prompt is 'a', but it must be a text with one \{\}"):
        TextConfig(prompt="a")
    deeper = optima_run(settings(pictures, depth=3), OptimaConfig(teacher=str(teacher)))
    with pytest.raises(UserError, match="the student has 3 blocks"):
        train(deeper, tmp_path / "d")
    other = optima_run(change(config, model={"context": 16}), OptimaConfig(teacher=str(teacher)))
    with pytest.raises(UserError, match=r"model.context is 16, but optima.teacher has 12"):
        train(other, tmp_path / "e")
    assert not list(tmp_path.iterdir())
    assert main(["caption", str(teacher), "--images", str(pictures / "none.png")]) == 2
    assert "none.png" in capsys.readouterr().err
