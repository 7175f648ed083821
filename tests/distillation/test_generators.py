"""A composed generator that learns from the whole one."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from kind_jax import open_bundle
from kind_jax.cli import main
from kind_jax.config import Config, DataConfig
from kind_jax.data.dataset import open_dataset, real
from kind_jax.data.summary import summary
from kind_jax.deploy.bundle import Bundle, export
from kind_jax.deploy.compose import compose
from kind_jax.distillation.generator_start import begin, settings
from kind_jax.distillation.generator_task import GeneratorTask
from kind_jax.errors import UserError
from kind_jax.train.metrics import read_metrics
from kind_jax.train.step import draw

NAMES = tuple(map(str, range(10)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole model, what was composed of it for class 3, and for two classes that keep their gates."""
    path = tmp_path_factory.mktemp("generators")
    config = tiny.CONFIG
    whole = Bundle(
        config=config, collections=tiny.weights(config.model), groups=tuple(range(10)), class_names=NAMES,
        weights="ema", step=1, origin=path,
    )  # fmt: skip
    export(whole, path / "whole")
    opened = open_bundle(path / "whole")
    for name, classes, how in (("three", (3,), {"rank": 4}), ("pair", (7, 2), {"rank": 6}), ("exact", (3,), {})):
        export(compose(opened, classes=classes, **how).bundle, path / name)
    return path


def bound(folder, name, **distil):
    config = settings(folder / "whole", folder / name)
    config = dataclasses.replace(config, distil=dataclasses.replace(config.distil, **distil))
    config, weights = begin(config, open_bundle(folder / name))
    dataset = open_dataset(config.data, "train")
    return GeneratorTask(config).bound(dataset, begins=True)[0], weights, dataset


def loss(task, weights, dataset):
    batch = {name: jnp.asarray(a) for name, a in dataset.source.gather(np.arange(8)).items()}
    trees = (jax.tree.map(jnp.asarray, weights), jax.tree.map(jnp.asarray, task.fixed()))
    return task.loss(trees[0], draw(task, batch, jnp.int32(0)), trees[1])


def test_an_exact_student_has_nothing_to_learn(folder):
    """It predicts what its teacher does; one that lacks components does not, and its data have its own class alone."""
    task, weights, dataset = bound(folder, "exact")
    assert float(loss(task, weights, dataset).value) < 1e-5
    assert set(dataset.source.labels.tolist()) == {3}
    assert dataset.class_names == NAMES
    found = loss(*bound(folder, "three"))
    assert float(found.value) == float(found.metrics["prediction"]) > 5e-5


def test_two_classes_keep_their_gates(folder):
    task, weights, dataset = bound(folder, "pair")
    assert task.config.distil.groups == tuple(open_bundle(folder / "pair").groups)
    chex.assert_trees_all_equal_shapes(task.shapes(), weights)
    assert np.isfinite(float(loss(task, weights, dataset).value))
    assert set(dataset.source.labels.tolist()) == {2, 7}


def test_on_data_alone_there_is_no_teacher(folder):
    """The loss is the denoising loss, and nothing is fixed."""
    task, weights, dataset = bound(folder, "three", prediction=0.0, data=1.0)
    assert task.fixed() == {}
    alone, _, _ = bound(folder, "three", prediction=0.0, data=1.0, teacher=None)  # nobody has to be there to teach
    assert alone.fixed() == {}
    found = loss(task, weights, dataset)
    assert float(found.value) == float(found.metrics["denoising"])
    both = loss(*bound(folder, "three", data=0.5))
    wanted = float(both.metrics["prediction"]) + 0.5 * float(found.metrics["denoising"])
    assert float(both.value) == pytest.approx(wanted, rel=1e-5)


def test_from_the_command_line(folder, tmp_path, capsys):
    """It learns, goes on exactly, and is a plain composed model in the end."""
    args = ["distil", str(folder / "whole"), "--into", str(folder / "three"), "--train.steps", "30"]
    args += ["--train.log-every", "1", "--optimizer.learning-rate", "3e-3"]
    assert main([*args, "--workdir", str(tmp_path / "run"), "--stop-after", "11"]) == 0
    assert main([*args, "--workdir", str(tmp_path / "run")]) == 0
    run = open_bundle(tmp_path / "run", kind=Config)
    losses = [line["loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert run.groups == (3,)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "art")]) == 0
    again = open_bundle(tmp_path / "art")
    assert again.config.task == "diffusion"
    chex.assert_trees_all_equal(again.collections, run.collections)
    assert again.sample([3], seed=0).shape == (1, 8, 8, 1)
    with pytest.raises(UserError, match="does not serve all of the classes that were asked for, only 3"):
        open_bundle(tmp_path / "run", classes=[4])


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["distil"], "the whole model must come first"),
        (["distil", "{}/whole"], "--into is missing"),
        (["distil", "{}/whole", "--into", "{}/nowhere"], "but it must be an artifact, as kind-jax compose writes it"),
        (["distil", "{}/whole", "--into", "{}/three"], "--workdir is missing"),
        (["distil", "{}", "--into", "{}/three", "--workdir", "{}/run"], "the teacher is"),
        (
            ["distil", "{}/whole", "--into", "{}/three", "--workdir", "{}/run", "--data.only", "3", "4"],
            "data.only is (3, 4), which takes in the class '4', but it must be among those that the student serves: 3",
        ),
        (
            ["distil", "{}/pair", "--into", "{}/three", "--workdir", "{}/run"],
            "pair has no tailors of class 3; it serves 2 and 7",
        ),
        (
            ["distil", "{}/three", "--into", "{}/three", "--workdir", "{}/run"],
            "which has the very weights of the student",
        ),
        (
            ["distil", "{}/whole", "--into", "{}/three", "--workdir", "{}/run", "--distil.prediction", "0"],
            "distil.prediction is 0.0, but it must be positive where distil.data is 0",
        ),
    ],
)
def test_bad_input(folder, args, sentence, capsys):
    assert main([arg.format(folder) for arg in args]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (folder / "run").exists()


def test_some_classes_of_many(folder):
    """``data.only``: labels and names stay; validation, fraction and the test split do not know of it."""
    config = DataConfig(source="digits", validation=0.2, only=("7", 2), fraction=0.5)
    found = open_dataset(config, "train")
    whole = open_dataset(dataclasses.replace(config, only=None, fraction=1.0), "train")
    assert found.class_names == NAMES
    assert [n for n in found.counts if n] == [round(whole.counts[c] / 2) for c in (2, 7)]
    assert len(set(open_dataset(config, "validation").source.labels.tolist())) == 10
    assert real(config).only is None
    typed = open_dataset(dataclasses.replace(config, only=("7,2",)), "train")
    np.testing.assert_array_equal(typed.source.labels, found.source.labels)
    assert summary(found)[0].endswith("of 2 classes, 8 x 8 x 1: 7 (52), 2 (51)"), summary(found)
    for only, sentence in (((11,), "between 0 and 9"), (("eleven",), r"data\.only .*eleven")):
        with pytest.raises(UserError, match=sentence):
            open_dataset(dataclasses.replace(config, only=only), "train")
    with pytest.raises(UserError, match=r"data\.only is .* free of repetitions"):
        dataclasses.replace(config, only=(1, 1))
