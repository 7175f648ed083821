"""Training that goes on from a whole model: a dense one that was decomposed, an artifact, another run."""

import dataclasses
import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
import tiny

from kind_jax.commands import train as command
from kind_jax.deploy.bundle import export, open_bundle
from kind_jax.deploy.compose import compose
from kind_jax.deploy.decompose import decompose
from kind_jax.errors import UserError
from kind_jax.partition import fingerprint
from kind_jax.train.loop import train
from kind_jax.train.metrics import read_metrics
from kind_jax.train.run import load_config
from kind_jax.transferring.whole import begin, check_classes

DENSE = tiny.change(tiny.CONFIG, model={"factor": {"projections": ()}})
FILE = str(Path(__file__).parents[2] / "chaos" / "config.py")  # whose model is another one: width 16, six learngenes


def go(directory, *args):
    settings = ["--train.steps", "4", "--train.batch", "8", "--model.contraction", "folded"]
    return command.run(["--config", FILE, "--workdir", str(directory), *settings, *args])


def losses(directory):
    return [m["loss"] for m in read_metrics(directory / "metrics.jsonl")]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A dense model that was trained for two steps, but from weights that make every block count."""
    directory, weights = tmp_path_factory.mktemp("dense") / "run", tiny.weights(DENSE.model)
    train(DENSE, directory, initial=lambda: weights, stop_after=2)
    return directory


@pytest.fixture(scope="module")
def begun(dense, tmp_path_factory):
    """The dense model decomposed, without loss, and a run that went on from it."""
    folder, source = tmp_path_factory.mktemp("begun"), open_bundle(dense, weights="raw")
    groups = (0, 1, 2, 3, 4, 0, 1, 2, 3, 4)
    export(decompose(source, learngenes=None, tailors=2, groups=groups).bundle, folder / "art")
    assert go(folder / "run", "--init", str(folder / "art")) == 0
    return folder / "art", folder / "run"


def test_the_first_loss_is_the_source_s(dense, begun, tmp_path):
    weights = open_bundle(dense, weights="raw").collections
    train(DENSE, tmp_path / "dense", initial=lambda: weights, stop_after=1)
    wanted, found = losses(tmp_path / "dense"), losses(begun[1])
    assert len(found) == 4
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    config, source = load_config(begun[1]), open_bundle(begun[0])
    assert config.transfer.source == fingerprint(source.collections)
    assert config.model == dataclasses.replace(source.config.model, contraction="folded")
    moved = open_bundle(begun[1], weights="raw").collections
    for name in ("learngenes", "tailors", "params"):  # tailors that began with s = 0 learn too
        pairs = zip(jax.tree.leaves(moved[name]), jax.tree.leaves(source.collections[name]), strict=True)
        assert all(not np.array_equal(a, b) for a, b in pairs)


def test_it_resumes_exactly_with_or_without_its_source(begun, tmp_path):
    artifact, whole = begun
    for args in (("--stop-after", "1"), ("--stop-after", "2", "--resume", "always")):
        go(tmp_path / "run", "--init", str(artifact), *args)
    go(tmp_path / "run", "--resume", "always")
    assert losses(tmp_path / "run") == losses(whole)
    found, wanted = (open_bundle(d, weights="raw").collections for d in (tmp_path / "run", whole))
    chex.assert_trees_all_equal(found, wanted)


def test_other_weights_are_refused(dense, begun, tmp_path):
    artifact, run = begun
    with pytest.raises(
        UserError, match=r"--init names weights with SHA-256 .*, but the run in .* began from those with"
    ):
        go(run, "--init", str(run))  # its own weights, which have moved
    with pytest.raises(UserError, match=r"began from random weights"):
        go(dense, "--init", str(artifact))
    shutil.copytree(run, tmp_path / "killed", ignore=lambda *_: ["checkpoints", "metrics.jsonl"])
    with pytest.raises(UserError, match=r"has no checkpoint yet: --init must name the model that holds them"):
        go(tmp_path / "killed")
    go(tmp_path / "killed", "--init", str(artifact), "--stop-after", "1")
    assert losses(tmp_path / "killed") == losses(run)[:1]


def test_settings_that_contradict_the_source_are_refused(begun, tmp_path):
    artifact, run = begun
    for args, message in [
        (("--model.depth", "3"), r"model.depth is 3, but the model that the run begins from has 2"),
        (("--model.factor.tailors", "5"), r"model.factor.tailors is 5, .* has 2"),
        (("--transfer.method", "full"), r"transfer.method is 'full', but --init goes on with a whole model"),
        (("--data.classes", *"1023456789"), r"whose class 0 is '0', but class 0 of the data is '1'"),
    ]:
        with pytest.raises(UserError, match=message):
            go(tmp_path / "run", "--init", str(artifact), *args)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"model.depth is 3"):
        go(run, "--model.depth", "3")
    with pytest.raises(UserError, match=r"--init is .*nothing', but it must be a run or an artifact"):
        go(tmp_path / "run", "--init", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"--init is empty"):
        go(tmp_path / "run", "--init=")
    other = tiny.change(open_bundle(artifact).config, diffusion={"process": "gaussian"}, sampler={"method": "ddim"})
    with pytest.raises(UserError, match=r"diffusion.process is 'gaussian', but .* has 'flow'"):
        begin(other, open_bundle(artifact))


def test_classes_of_other_names_are_refused(begun, tmp_path, capsys):
    named = dataclasses.replace(open_bundle(begun[0]), class_names=tuple("abcdefghij"), origin=tmp_path)
    with pytest.raises(UserError, match=r"whose class 1 is 'b', but class 1 of the data is 'c', .*data.classes in its"):
        check_classes(named, tuple("acbdefghij"))
    with pytest.raises(UserError, match=r"class 9 is 'j', but class 9 of the data is 'x', .*kind-jax transfer"):
        check_classes(named, tuple("abcdefghix"))
    assert check_classes(named, named.class_names) is None
    assert "its class 0 is taken for 'a'" in (check_classes(open_bundle(begun[0]), named.class_names) or "")


def test_another_number_of_classes_is_refused(begun, tmp_path):
    with pytest.raises(UserError, match=r"model.num_classes is 10, but .* has 2 classes"):
        go(tmp_path / "run", "--init", str(begun[0]), "--data.classes", "3", "7")


def test_a_bank_in_another_order_is_sorted_and_a_partial_one_refused(begun):
    bundle = open_bundle(begun[0])
    order = [3, 0, 4, 2, 1]
    tailors = jax.tree.map(lambda a: a[order], bundle.collections["tailors"])
    mixed = dataclasses.replace(bundle, groups=tuple(order), collections={**bundle.collections, "tailors": tailors})
    chex.assert_trees_all_equal(begin(bundle.config, mixed)[1], bundle.collections)
    with pytest.raises(UserError, match=r"has nothing for the groups \[0, 2\], but .* serve all of its 5 groups"):
        begin(bundle.config, open_bundle(begun[0], classes=(1, 3, 4)))


def test_the_gate_of_the_null_class_may_be_chosen_anew(begun):
    bundle = open_bundle(begun[0])
    other = tiny.change(bundle.config, model={"null_gate": "mean", "dtype": "bfloat16", "remat": True})
    assert begin(other, bundle)[0].model == other.model


def test_what_was_dense_serves_one_class_in_the_end(begun):
    """Dense training, decomposition, KIND training, composition."""
    trained = open_bundle(begun[1])
    small = compose(trained, classes=(7,), rank=8)
    assert small.after.parameters < small.before.parameters
    assert small.bundle.sample(np.array([7, 7], np.int32), seed=0).shape == (2, 8, 8, 1)
