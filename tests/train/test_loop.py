"""Runs: exact resume, checkpoints that load in parts, and folders that must not be touched."""

import json
import re
import shutil
import subprocess
import sys

import chex
import jax
import pytest
import tiny

from kind_jax import model, partition
from kind_jax.config import CollectionConfig, FactorConfig, to_json
from kind_jax.data import pipeline
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy.bundle import open_bundle
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import checkpoint, history, loop
from kind_jax.train import state as states
from kind_jax.train.checkpoint import Checkpoints
from kind_jax.train.loop import train
from kind_jax.train.metrics import read_metrics
from kind_jax.train.run import load_config

CONFIG = tiny.change(tiny.CONFIG, train={"steps": 40, "log_every": 10, "sample_every": 20})


def input_at(position):
    """The run's input pipeline at a batch."""
    data = pipeline.batches(open_dataset(CONFIG.data, "train"), batch=CONFIG.train.batch, seed=CONFIG.data.seed)
    data.set_state({"next_index": position})
    return data


def everything(directory, step):
    """All arrays of a checkpoint and the position of its input."""
    data = input_at(0)
    state = Checkpoints(directory / "checkpoints", CONFIG).restore(step, states.abstract(task_of(CONFIG)), data)
    return jax.device_get(state), data.get_state()


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run of 40 steps without interruption."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    summary = train(CONFIG, directory)
    assert summary.step == 40
    return directory


def test_a_resumed_run_is_bit_identical(whole_run, tmp_path, capsys):
    directory = tmp_path / "parts"
    assert train(CONFIG, directory, stop_after=20).step == 20
    assert train(CONFIG, directory).step == 40
    assert f"resuming {directory} at step 20" in capsys.readouterr().out
    found, wanted = everything(directory, 40), everything(whole_run, 40)
    chex.assert_trees_all_equal(found[0], wanted[0])
    assert found[1] == wanted[1] == {"next_index": 40}
    logged = [[(m["step"], m["loss"]) for m in read_metrics(d / "metrics.jsonl")] for d in (directory, whole_run)]
    assert logged[0] == logged[1]
    assert train(CONFIG, directory).step == 40  # nothing left to do


def test_what_a_run_leaves(whole_run):
    assert load_config(whole_run) == CONFIG
    assert {p.name for p in (whole_run / "samples").iterdir()} == {"step_0000020.png", "step_0000040.png"}
    assert [m["step"] for m in read_metrics(whole_run / "metrics.jsonl")] == [10, 20, 30, 40]
    assert history.steps(whole_run / "checkpoints") == [40]
    items = {p.name for p in (whole_run / "checkpoints" / "40").iterdir() if p.is_dir()}
    collections = {"learngenes", "tailors", "params"}
    assert items == collections | {f"ema_{c}" for c in collections} | {"optimizer", "data", "meta"}


@pytest.mark.parametrize("name", ["learngenes", "tailors", "params"])
def test_any_collection_loads_alone(whole_run, tmp_path, name):
    """With every other collection's files deleted."""
    copy = tmp_path / "40"
    shutil.copytree(whole_run / "checkpoints" / "40", copy)
    for item in copy.iterdir():
        if item.is_dir() and item.name not in (name, "meta"):
            shutil.rmtree(item)
    loaded = checkpoint.load_collections(tmp_path, 40, task_of(CONFIG), [name], weights="raw")
    state, _ = everything(whole_run, 40)
    chex.assert_trees_all_equal(jax.device_get(loaded), {name: state.collections[name]})


def test_a_checkpoint_that_does_not_fit_is_refused_by_name(whole_run):
    smaller = tiny.change(CONFIG, model={"factor": {"learngenes": 5}})
    directory = whole_run / "checkpoints"
    with pytest.raises(UserError, match=r"ema_learngenes: 'blocks/attention/qkv/s' has shape \(2, 6\).*needs \(2, 5\)"):
        checkpoint.load_collections(directory, 40, task_of(smaller), ["learngenes"])
    more = tiny.change(CONFIG, model={"factor": {"projections": ("qkv", "mlp_out", "o")}})
    with pytest.raises(UserError, match="lacks the array 'blocks/attention/o/s'"):
        checkpoint.load_collections(directory, 40, task_of(more), ["learngenes"])


def test_fewer_steps_than_done_are_refused(whole_run):
    with pytest.raises(UserError, match=r"train.steps is 10, but .* has trained for 40 steps already"):
        train(tiny.change(CONFIG, train={"steps": 10}), whole_run)
    assert load_config(whole_run) == CONFIG


def test_another_config_is_refused_naming_every_difference(whole_run):
    before = {p: p.stat().st_mtime_ns for p in whole_run.rglob("*") if p.name != ".lock"}
    other = tiny.change(CONFIG, train={"batch": 16, "log_every": 5}, model={"factor": {"tailors": 3}})
    message = r"train.batch was 8, now 16; model.factor.tailors was 2, now 3; give this run another --workdir"
    with pytest.raises(UserError, match=message):
        train(other, whole_run)
    assert {p: p.stat().st_mtime_ns for p in whole_run.rglob("*") if p.name != ".lock"} == before


def test_what_a_run_leaves_that_was_killed_at_its_very_start_is_no_others(tmp_path):
    (tmp_path / ".config.json.0123456789ab.tmp").write_text("half a con")
    assert train(CONFIG, tmp_path, stop_after=1).step == 1
    assert not list(tmp_path.glob(".config*"))


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not a run and not empty"):
        train(CONFIG, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.tex"}
    (tmp_path / "config.json").write_text(to_json(CONFIG).replace('"depth": 2', '"depth": "two"'))
    with pytest.raises(UserError, match=r"config.json: model.depth: .*found 'two'"):
        train(CONFIG, tmp_path)


def test_a_folder_that_a_living_process_holds_is_refused(whole_run):
    script = (
        "import sys, time; from kind_jax.train.lock import run_lock\n"
        "with run_lock(sys.argv[1]):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(whole_run)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=str(holder.pid)):
            train(CONFIG, whole_run)
        holder.kill()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"num_classes": 7}}, "model.num_classes is 7.*has 10 classes"),
        (
            {"model": {"size": 16, "channels": 3, "num_classes": 7}},
            r"make images \(16, 16, 3\), .* has \(8, 8, 1\); model.num_classes is 7, .* has 10 classes; "
            r"--model.size 8 --model.channels 1 --model.num-classes 10 would fit the data\.$",
        ),
        ({"model": {"size": 16}}, r"make images \(16, 16, 1\).*has \(8, 8, 1\)"),
        ({"train": {"batch": 12}}, "train.batch is 12.*multiple of the 8"),
    ],
)
def test_settings_that_do_not_fit_the_data_or_the_mesh(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        train(tiny.change(CONFIG, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_host_is_one_step_ahead_of_the_device(tmp_path, monkeypatch):
    """So a run that is asked to stop has little left to do, and a device still has its next step at once."""
    steps = []

    def after(self, step, result):
        steps.append(result["loss"])
        assert all(loss.is_ready() for loss in steps[:-1])

    monkeypatch.setattr(loop.Profile, "after", after)
    train(tiny.change(CONFIG, train={"log_every": 40, "sample_every": 0}), tmp_path / "run")
    assert len(steps) == 40


def test_a_log_file_hears_at_once_what_goes_on(tmp_path, capsys):
    config = tiny.change(CONFIG, train={"steps": 2, "log_every": 1, "sample_every": 0})
    parameters = sum(leaf.size for leaf in jax.tree.leaves(states.abstract(task_of(config)).collections))
    for done, begins in ((0, "making the weights of step 0 ..."), (1, "reading the checkpoint of step 1 ...")):
        train(config, tmp_path / "run", stop_after=done + 1)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "opening the data set digits ..."
        assert lines[1].startswith("data: 1,297 training images of 10 classes, 8 x 8 x 1: 0 (128), ")
        assert lines[2].startswith(f"{parameters:,} parameters: learngenes ")
        assert lines[3] == begins
        assert lines[-3] == "compiling the training step ..."
        assert re.fullmatch(rf"step {done + 1}/2 after \d+ s  loss \d\.\d{{4}}", lines[-2])


@pytest.mark.slow
def test_dense_and_frozen_models_train_and_resume(tmp_path):
    """No tailors at all, and a collection without a moving average."""
    dense = tiny.change(CONFIG, model={"factor": FactorConfig(projections=())}, train={"steps": 4, "sample_every": 0})
    assert train(dense, tmp_path / "dense", stop_after=2).step == 2
    assert train(dense, tmp_path / "dense").step == 4
    assert open_bundle(tmp_path / "dense").collections["tailors"] == {}
    frozen = tiny.change(
        CONFIG, optimizer={"learngenes": CollectionConfig(freeze=True)}, train={"steps": 4, "sample_every": 0}
    )
    train(frozen, tmp_path / "frozen", stop_after=2)
    train(frozen, tmp_path / "frozen")
    bundle = open_bundle(tmp_path / "frozen")
    chex.assert_trees_all_equal(
        jax.device_get(bundle.collections["learngenes"]), model.init(frozen.model, 0)["learngenes"]
    )
    assert "ema_learngenes" not in json.dumps([p.name for p in (tmp_path / "frozen/checkpoints/4").iterdir()])
    assert partition.groups_in(bundle.collections["tailors"]) == 10


@pytest.mark.slow
def test_classes_may_be_chosen(tmp_path):
    novel = tiny.change(
        CONFIG, data={"classes": (7, 8, 9)}, model={"num_classes": 3}, train={"steps": 2, "sample_every": 0}
    )
    train(novel, tmp_path / "novel")
    assert open_bundle(tmp_path / "novel").class_names == ("7", "8", "9")
