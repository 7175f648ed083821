"""What goes wrong while a run goes on: bad numbers, signals, a full disk, a folder that vanishes."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
import tiny

from kind_jax.config import CollectionConfig
from kind_jax.deploy.bundle import open_bundle
from kind_jax.errors import UserError
from kind_jax.train import checkpoint, history, opening, progress
from kind_jax.train.loop import train
from kind_jax.train.metrics import read_metrics

ROOT = Path(__file__).parents[2]
CONFIG = tiny.TWELVE
open_dataset = opening.open_dataset


def losses(run):
    return [(m["step"], m["loss"]) for m in read_metrics(run / "metrics.jsonl")]


@pytest.fixture
def poisoned(monkeypatch):
    """One image of the data set, whose epochs are 8 steps, is not finite: step 7 meets it."""

    def few(config, split):
        found = open_dataset(config, split)
        images, labels = found.source.images[:64].copy(), found.source.labels[:64].copy()
        order = np.random.RandomState([0, 0]).permutation(64)
        images[order[6 * 8]] = np.nan
        return dataclasses.replace(found, source=type(found.source)(images=images, labels=labels))

    monkeypatch.setattr(opening, "open_dataset", few)


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step_with_a_diagnostic(poisoned, tmp_path):
    config = tiny.change(CONFIG, train={"log_every": 3})
    message = r"not finite at step 7 \(loss nan, gradient norm nan\); .*checkpoint is of step 4, and .*0000007 says"
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run")
    assert history.steps(tmp_path / "run" / "checkpoints") == [4]
    folder = tmp_path / "run" / "diagnostics" / "step_0000007"
    report = json.loads((folder / "report.json").read_text())
    assert (report["step"], report["losses"]["loss"]) == (7, "nan")
    assert report["not_finite"] == {"image": 64, "label": 0, "weights": 0}
    assert "params.blocks.attention.qkv.bias" in report["gradients_not_finite"]
    assert all(isinstance(value, float) for value in report["largest_weights"].values())  # of before the fault
    with np.load(folder / "batch.npz") as batch:
        assert [np.isfinite(image).all() for image in batch["image"]].count(False) == 1
        assert len(batch["label"]) == len(batch["t"]) == 8
    with pytest.raises(UserError, match="at step 7"):  # exactly again
        train(config, tmp_path / "run")


def test_such_steps_may_be_skipped_and_are_counted(poisoned, tmp_path):
    config = tiny.change(CONFIG, train={"skip_nonfinite": 1, "steps": 16})
    assert train(config, tmp_path / "run", stop_after=8).step == 8  # the count is part of a checkpoint
    assert train(config, tmp_path / "run").step == 16
    image = np.random.RandomState([0, 0]).permutation(64)[6 * 8]
    second = 8 + list(np.random.RandomState([0, 1]).permutation(64)).index(image) // 8  # in the second epoch
    counts = [m["nonfinite_steps"] for m in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert counts == [0] * 6 + [1] * (second - 6) + [2] * (16 - second)
    leaves = jax.tree.leaves(open_bundle(tmp_path / "run").collections)
    assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_weights_that_blow_up_in_the_last_step_are_not_saved(tmp_path):
    wild = tiny.change(
        CONFIG, optimizer={"learning_rate": 1e30, "params": CollectionConfig(weight_decay=1e30)}, train={"steps": 1}
    )
    with pytest.raises(UserError, match=r"step 1 was not saved: it holds values in .* that are not finite"):
        train(wild, tmp_path / "run")
    assert history.steps(tmp_path / "run" / "checkpoints") == []


def test_losses_are_the_recorded_ones(twelve_steps):
    """Any change of initialisation, data order, noise, model or optimizer shows here."""
    golden = json.loads((ROOT / "tests" / "fixtures" / "golden_losses.json").read_text())
    chex.assert_trees_all_close([loss for _, loss in losses(twelve_steps)], golden, rtol=1e-4)


def test_a_signal_ends_the_step_saves_and_the_same_command_continues(twelve_steps, tmp_path, monkeypatch, capfd):
    update = progress.Progress.update

    def interrupting(self, step, *given, **more):
        update(self, step, *given, **more)
        if step == 5:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(progress.Progress, "update", interrupting)
    summary = train(CONFIG, tmp_path / "run")
    assert summary.interrupted
    assert summary.step == 6
    said = capfd.readouterr()
    assert "stopping after the step under way, with a checkpoint; a second signal stops at once" in said.err
    assert "saving step 6, then stopping\n" in said.out
    assert history.latest_good(tmp_path / "run" / "checkpoints").step == 6
    summary = train(CONFIG, tmp_path / "run", resume="always")
    assert (summary.step, summary.interrupted) == (12, False)
    assert losses(tmp_path / "run") == losses(twelve_steps)


def test_a_second_signal_stops_at_once_without_damage(twelve_steps, tmp_path):
    script = (
        "import signal, sys, tiny\nfrom pathlib import Path\nfrom kind_jax.train import loop, progress\n"
        "update = progress.Progress.update\n"
        "def twice(self, step, *given, **more):\n"
        "    update(self, step, *given, **more)\n"
        "    if step == 5:\n"
        "        signal.raise_signal(signal.SIGINT); signal.raise_signal(signal.SIGINT)\n"
        "progress.Progress.update = twice\n"
        "loop.train(tiny.TWELVE, Path(sys.argv[1]))\n"
    )
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax-tests"), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "run"], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGINT, done.stderr.decode()
    assert train(CONFIG, tmp_path / "run").step == 12
    assert losses(tmp_path / "run") == losses(twelve_steps)


def test_resuming_can_be_forbidden_or_demanded(twelve_steps, tmp_path):
    with pytest.raises(UserError, match=r"--resume is 'never', but .* holds a run with a checkpoint of step 12"):
        train(CONFIG, twelve_steps, resume="never")
    with pytest.raises(UserError, match=r"--resume is 'always', but .* holds no checkpoint"):
        train(CONFIG, tmp_path / "typo", resume="always")


@pytest.mark.slow
def test_a_save_that_does_not_fit_is_one_sentence_and_the_last_checkpoint_stays(tmp_path):
    """Files may not grow beyond what the first checkpoint needed; make chaos does the same with a full disk. In a
    process of its own: what Orbax fails at goes on failing in its threads."""
    run = tmp_path / "run"
    line = ["train", "--config", ROOT / "chaos" / "config.py", "--workdir", run]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax-chaos")}
    command = [sys.executable, "-m", "kind_jax", *line]
    subprocess.run([*command, "--stop-after", "3"], env=environment, cwd=ROOT, check=True, capture_output=True)
    limit = max(p.stat().st_size for p in (run / "checkpoints" / "3").rglob("*")) // 2
    small = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
    command[1:3] = ["-c", f"{small} runpy.run_module('kind_jax', run_name='__main__')"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    expected = (
        "error: the checkpoint of step 6 could not be written to .*: File too large; the last good one is step 3."
    )
    assert re.fullmatch(f"{expected}\n", done.stderr)
    assert history.latest_good(run / "checkpoints").step == 3
    assert open_bundle(run).step == 3


def test_a_folder_that_moves_while_a_save_is_under_way_is_not_made_anew(twelve_steps, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(twelve_steps, run)

    class Late:
        def result(self):
            run.rename(tmp_path / "away")
            (run / "checkpoints" / "13.saving" / "params").mkdir(parents=True)  # as Orbax does

    monkeypatch.setattr(checkpoint.ocp, "save_checkpointables_async", lambda *given, **more: Late())
    with pytest.raises(UserError, match="was removed, moved or replaced"):
        train(tiny.change(CONFIG, train={"steps": 13}), run)
    assert not run.exists()
    assert history.latest_good(tmp_path / "away" / "checkpoints").step == 12


@pytest.mark.parametrize("what", ["moved", pytest.param("replaced", marks=pytest.mark.slow)])
def test_a_run_directory_that_vanishes(twelve_steps, tmp_path, monkeypatch, what):
    update, run, away = progress.Progress.update, tmp_path / "run", tmp_path / "away"

    def vanish(self, step, *given, **more):
        update(self, step, *given, **more)
        if step == 6:
            while not (run / "checkpoints" / "4").exists():
                time.sleep(0.01)
            run.rename(away)
            if what == "replaced":
                (run / "checkpoints").mkdir(parents=True)

    monkeypatch.setattr(progress.Progress, "update", vanish)
    with pytest.raises(UserError, match="was removed, moved or replaced while the run was going on"):
        train(CONFIG, run)
    assert not list(run.rglob("*.*"))  # nothing was made anew
    monkeypatch.setattr(progress.Progress, "update", update)
    assert train(CONFIG, away).step == 12
    assert losses(away) == losses(twelve_steps)


def test_a_run_that_no_memory_could_hold_is_refused_at_once(tmp_path):
    huge = tiny.change(CONFIG, model={"width": 65536, "heads": 2, "depth": 48})
    with pytest.raises(UserError, match=r"the state and one batch take [\d,.]+ TB, but this machine has [\d.]+ GB"):
        train(huge, tmp_path / "run")
    assert not (tmp_path / "run").exists()
