"""A run and an artifact that a version before tasks has saved: they load, resume, sample and export as they did then.

The run has three of six steps; recorded are the losses of a run that was never interrupted and samples of its artifact.
"""

import shutil
import zipfile
from pathlib import Path

import chex
import numpy as np
import pytest

from kind_jax.deploy.bundle import export, open_bundle
from kind_jax.train.loop import train
from kind_jax.train.metrics import read_metrics
from kind_jax.train.run import load_config

FOLDER = Path(__file__).parent / "fixtures" / "before_tasks"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with zipfile.ZipFile(FOLDER / "saved.zip") as archive:
        archive.extractall(folder)
    with np.load(FOLDER / "expected.npz") as arrays:
        return folder, dict(arrays)


def test_the_artifact_draws_what_it_drew(saved):
    folder, expected = saved
    images = open_bundle(folder / "artifact").sample([0, 1, 2], seed=0)
    np.testing.assert_allclose(images, expected["images"], atol=1e-5)


def test_the_run_goes_on_exactly_and_becomes_the_same_artifact(saved, tmp_path):
    folder, expected = saved
    run = shutil.copytree(folder / "run_at_3", tmp_path / "run")
    assert train(load_config(run), run).step == 6
    losses = [line["loss"] for line in read_metrics(run / "metrics.jsonl")]
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-6)
    export(open_bundle(run), tmp_path / "artifact")
    found, wanted = open_bundle(tmp_path / "artifact"), open_bundle(folder / "artifact")
    assert found.config == wanted.config
    assert found.class_names == wanted.class_names
    np.testing.assert_allclose(found.sample([0, 1, 2], seed=0), expected["images"], atol=1e-4)
    chex.assert_trees_all_close(found.collections, wanted.collections, rtol=1e-3, atol=1e-5)
