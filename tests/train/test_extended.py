"""A finished run goes on: longer, at other rates, with its optimizer's state; what it means stays."""

import shutil

import chex
import jax
import numpy as np
import pytest
import tiny

from kind_jax import cli
from kind_jax.data import pipeline
from kind_jax.data.dataset import open_dataset
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.checkpoint import Checkpoints
from kind_jax.train.extended import entries
from kind_jax.train.loop import train
from kind_jax.train.metrics import read_metrics
from kind_jax.train.optimizer import learning_rate
from kind_jax.train.run import load_config

CONFIG = tiny.change(
    tiny.CONFIG, train={"steps": 4, "log_every": 1, "checkpoint_every": 2, "sample_every": 0},
    optimizer={"schedule": "cosine", "warmup": 1},
)  # fmt: skip
LONGER = tiny.change(CONFIG, train={"steps": 8}, optimizer={"learning_rate": 1e-4, "warmup": 0})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "run"
    train(CONFIG, directory)
    return directory


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def arrays(directory, step):
    config = load_config(directory)
    data = pipeline.batches(open_dataset(config.data, "train"), batch=config.train.batch, seed=config.data.seed)
    checkpoints = Checkpoints(directory / "checkpoints", config)
    return jax.device_get(checkpoints.restore(step, states.abstract(task_of(config)), data))


def test_a_finished_run_goes_on(run, finished, tmp_path, capsys):
    with pytest.raises(UserError, match=r"train\.steps was 4, now 8.*, or extend it \(--extend\)\.$"):
        train(LONGER, run)
    assert train(LONGER, run, resume="extend").step == 8
    assert "extended from step 4 on: " in capsys.readouterr().out
    assert load_config(run) == LONGER
    assert entries(run) == [
        {"step": 4, "changed": {
            "optimizer.learning_rate": [CONFIG.optimizer.learning_rate, 1e-4], "optimizer.warmup": [1, 0],
            "train.steps": [4, 8],
        }}
    ]  # fmt: skip
    logged = {m["step"]: m["learning_rate"] for m in read_metrics(run / "metrics.jsonl")}
    schedules = {
        step: learning_rate(c.optimizer, c.train.steps)
        for c, steps in ((CONFIG, range(1, 5)), (LONGER, range(5, 9)))
        for step in steps
    }
    np.testing.assert_allclose([logged[s] for s in range(1, 9)], [schedules[s](s - 1) for s in range(1, 9)], rtol=1e-5)
    # Killed and resumed, with or without the word, it is the same to the last bit.
    other = shutil.copytree(finished, tmp_path / "other")
    assert train(LONGER, other, resume="extend", stop_after=6).step == 6
    assert train(LONGER, other).step == 8
    chex.assert_trees_all_equal(arrays(other, 8), arrays(run, 8))
    assert entries(other) == entries(run)


def test_at_the_same_rate_it_is_the_longer_run(tmp_path):
    """To the last bit, so that nothing of the optimizer's state is lost."""
    whole = tiny.change(CONFIG, train={"steps": 6}, optimizer={"schedule": "constant", "learning_rate": 5e-4})
    train(whole, tmp_path / "whole")
    train(tiny.change(whole, train={"steps": 4}), tmp_path / "parts")
    train(whole, tmp_path / "parts", resume="extend")
    chex.assert_trees_all_equal(arrays(tmp_path / "parts", 6), arrays(tmp_path / "whole", 6))


def test_the_command_line_needs_no_config(run, capsys):
    assert cli.main(["train", "--workdir", str(run), "--extend", "--train.steps", "5"]) == 0
    assert cli.main(["train", "--workdir", str(run), "--extend"]) == 0
    assert "nothing is extended" in capsys.readouterr().out
    assert cli.main(["inspect", str(run)]) == 0
    assert "extended at step 4: train.steps was 4, now 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--train.batch", "16"), "train.batch was 8, now 16; give this run another --workdir"),
        (("--train.steps", "2"), "train.steps is 2, but"),
        (("--resume", "never"), "--extend is given, but --resume is 'never'"),
        (("--init", "elsewhere"), "--extend is given together with --init"),
    ],
)
def test_what_is_no_extension(run, options, sentence, capsys):
    before = {p: p.read_bytes() for p in run.rglob("*.json*")}
    assert cli.main(["train", "--workdir", str(run), "--extend", *options]) == 2
    assert sentence in capsys.readouterr().err
    assert {p: p.read_bytes() for p in run.rglob("*.json*")} == before


def test_there_must_be_a_run(tmp_path, capsys):
    assert cli.main(["train", "--workdir", str(tmp_path / "none"), "--extend"]) == 2
    assert "is not a run: it has no config.json" in capsys.readouterr().err
    assert cli.main(["train", "--extend"]) == 2
    assert "--extend needs --workdir" in capsys.readouterr().err
    with pytest.raises(UserError, match="is to be extended, but it is not a run"):
        train(LONGER, tmp_path / "none", resume="extend")
    assert not (tmp_path / "none").exists()
