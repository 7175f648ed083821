"""The trainer trains any task; a kind of run is known by its name."""

import json
import subprocess
import sys

import linear_task
import pytest
import tiny

from kind_jax.config import OptimizerConfig, TrainConfig, from_json, to_json
from kind_jax.deploy.bundle import open_bundle
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import run
from kind_jax.train.loop import train
from kind_jax.train.metrics import read_metrics


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A linear classifier, trained in one go and in two, in a process that must not have imported a DiT."""
    folder = tmp_path_factory.mktemp("linear")
    done = subprocess.run(
        [sys.executable, linear_task.__file__, folder], capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_another_task_trains_resumes_and_reports(runs):
    folder, said = runs
    lines = {name: read_metrics(folder / name / "metrics.jsonl") for name in ("whole", "parts")}
    whole, parts = ([(line["loss"], line["accuracy"]) for line in found] for found in lines.values())
    assert whole == parts
    assert len(whole) == 60
    assert whole[-1][0] < 0.6 < 2 < whole[0][0]
    assert whole[-1][1] > 0.8
    watched = {line["step"]: line["bias"] for line in lines["whole"] if "bias" in line}
    assert sorted(watched) == [30, 60]
    assert f"{watched[30]:.8f}" in (folder / "whole" / "bias_30.txt").read_text()
    assert "650 parameters: params 650" in said
    assert "warning: it is linear" in said
    assert (folder / "whole" / "bias_30.txt").read_text() == (folder / "parts" / "bias_30.txt").read_text()
    assert (folder / "whole" / "checkpoints" / "60" / "params").is_dir()


def test_a_run_knows_its_kind(runs):
    folder, _ = runs
    config = run.load_config(folder / "whole")
    assert isinstance(config, linear_task.LinearRun)
    assert json.loads(to_json(config))["task"] == "linear"
    assert isinstance(task_of(config), linear_task.LinearTask)
    with pytest.raises(
        UserError, match=r"whole is a run of the kind 'linear', whose model is not one that can be opened"
    ):
        open_bundle(folder / "whole")
    with pytest.raises(UserError, match="task was 'linear', now 'diffusion'"):
        run.check(folder / "whole", tiny.CONFIG)


def test_a_config_without_a_kind_is_of_diffusion_and_an_unknown_one_is_refused():
    assert "task" not in json.loads(to_json(tiny.CONFIG))
    text = to_json(tiny.CONFIG).replace("{", '{"task": "diffusion",', 1)
    assert from_json(text, "config.json") == tiny.CONFIG
    for kind in ("sorting", 3, None, ["diffusion"]):
        changed = text.replace('"diffusion"', json.dumps(kind), 1)
        with pytest.raises(UserError, match=r"config.json: task is .*, but it must be one of diffusion"):
            from_json(changed, "config.json")


def test_a_teacher_is_read_by_every_step_and_saved_by_none(tmp_path, monkeypatch):
    """It is an argument of the step: no part of a checkpoint, which names it by its hash."""
    from taught_task import TaughtRun, TaughtTask

    config = TaughtRun(
        optimizer=OptimizerConfig(learning_rate=0.05),
        train=TrainConfig(steps=8, batch=16, log_every=1, checkpoint_every=4, sample_every=0),
    )
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop_after=4)
    with monkeypatch.context() as patch:
        patch.setattr(TaughtTask, "teacher", 2.0)
        with pytest.raises(UserError, match="was trained beside fixed weights with SHA-256"):
            train(config, tmp_path / "parts")
    train(config, tmp_path / "parts")
    logged = [[line["loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("whole", "parts")]
    assert logged[0] == logged[1]
    assert logged[0][-1] < logged[0][0]
    step = tmp_path / "parts" / "checkpoints" / "8"
    assert sorted(p.name for p in step.iterdir() if p.is_dir()) == ["data", "ema_params", "meta", "optimizer", "params"]
