"""Runs that distil: on the one trainer, with a student that is a plain classifier in the end."""

import json

import chex
import numpy as np
import pytest

from distillation import tiny_students as tiny
from kind_jax.classifying.config import ClassifyRun
from kind_jax.classifying.predict import classify
from kind_jax.cli import main
from kind_jax.config import change, to_json
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy.bundle import export, open_bundle
from kind_jax.distillation.commands import report
from kind_jax.errors import UserError
from kind_jax.losses import uniform_on_sphere
from kind_jax.tasks import task_of
from kind_jax.train.checkpoint import load_collections
from kind_jax.train.loop import train
from kind_jax.train.metrics import read_metrics
from kind_jax.train.run import load_config, save_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The settings of a run with projectors and memory, and the run."""
    folder = tmp_path_factory.mktemp("crd")
    config = tiny.run(folder, "vit", "cnn", method="crd")
    train(config, folder / "whole")
    return config, folder / "whole"


def test_a_resumed_run_is_the_same_to_the_bit(trained, tmp_path):
    """With projectors and memory."""
    config, whole = trained
    parts = tmp_path / "parts"
    train(config, parts, stop_after=3)
    train(config, parts)
    saved = load_config(whole)
    names = tuple(task_of(saved).shapes())
    assert {"projectors", "memory"} < set(names)
    a, b = (load_collections(f / "checkpoints", 4, task_of(saved), weights="raw") for f in (whole, parts))
    chex.assert_trees_all_equal(a, b)
    assert set(a) == set(names)


def test_whoever_opens_it_finds_a_plain_classifier(trained, tmp_path):
    """The student alone, in the run, in its best weights, and in an artifact; the teacher stays as it was."""
    config, whole = trained
    before = open_bundle(config.distil.teacher).collections
    for weights in ("ema", "raw", "best"):
        bundle = open_bundle(whole, weights=weights, kind=ClassifyRun)
        assert set(bundle.collections) == {"learngenes", "tailors", "params"}
    manifest = export(open_bundle(whole), tmp_path / "art")
    assert manifest["config"]["task"] == "classification"
    assert set(manifest["files"]) == {"params.safetensors"}
    images = open_dataset(config.data, "test").source.gather(np.arange(6))["image"]
    chex.assert_trees_all_close(classify(open_bundle(tmp_path / "art"), images), classify(open_bundle(whole), images))
    chex.assert_trees_all_equal(open_bundle(config.distil.teacher).collections, before)
    looked = [line for line in read_metrics(whole / "metrics.jsonl") if "validation_top1" in line]
    assert [line["step"] for line in looked] == [2, 4]
    assert {"loss", "cross_entropy", "kd"} <= set(looked[-1])


def test_verbs_of_classifiers(trained, tmp_path, capsys):
    _, whole = trained
    assert main(["evaluate", str(whole), "--out", str(tmp_path / "e.json")]) == 0
    assert main(["report", str(whole), "--out", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert "The parts of the loss" in page
    assert main(["inspect", str(whole)]) == 0
    assert "projectors" not in capsys.readouterr().out


def test_uniformity_in_a_report(tmp_path):
    """Beside the value of the sphere."""
    save_config(tmp_path, tiny.run(tmp_path / "teachers"))
    lines = [{"step": i, "align": 1 / i, "uniform_student": -1.5, "uniform_teacher": -1.0} for i in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    parts, uniform = report._parts(tmp_path)
    assert "align_uniform" in parts.caption
    assert f"{uniform_on_sphere(8):.3f} where many are spread evenly" in uniform.caption


@pytest.mark.slow
def test_a_cached_teacher(tmp_path):
    """The same training to rounding; the file is used again, and refused when it is not what its name says."""
    config = tiny.run(tmp_path, "vit", "vit", cache=str(tmp_path / "cache"))
    train(config, tmp_path / "cached")
    train(change(config, distil={"cache": None}), tmp_path / "plain")
    a, b = ([line["loss"] for line in read_metrics(tmp_path / f / "metrics.jsonl")] for f in ("cached", "plain"))
    np.testing.assert_allclose(a, b, rtol=1e-3)
    (file,) = (tmp_path / "cache").iterdir()
    written = file.stat().st_mtime_ns

    def columns(config):
        task, dataset = tiny.bound(config)
        return task.columns(dataset, {})

    assert set(columns(config)) == {"teacher_features", "teacher_logits"}
    assert file.stat().st_mtime_ns == written
    coloured = change(tiny.bound(config)[0].config, distil={"network": {"mean": (0.5,), "std": (0.25,)}})
    dataset = open_dataset(config.data, "train")
    with pytest.raises(UserError, match="one teacher alone"):  # the weights of another network
        tiny.DistilTask(change(coloured, distil={"source": "0" * 64})).columns(dataset, {})
    features = tiny.DistilTask(coloured).columns(dataset, {})["teacher_features"]
    assert np.abs(features - columns(config)["teacher_features"]).max() > 0.01
    (third,) = set((tmp_path / "cache").iterdir()) - {file}
    third.unlink()
    other = change(config, distil={"teacher": str(tiny.teacher(tmp_path, "vit", seed=8))})
    columns(other)
    (second,) = set((tmp_path / "cache").iterdir()) - {file}
    second.write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="holds the outputs of another teacher or of other images"):
        columns(other)
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"distil\.cache has the file .*, which is damaged: remove it"):
        columns(config)
    for where in (file, file / "inside"):
        with pytest.raises(UserError, match=r"distil\.cache is .*, but it must be a folder.* is a file"):
            columns(change(config, distil={"cache": str(where)}))


def test_a_run_has_one_teacher(trained, tmp_path):
    config, whole = trained
    moved = change(config, distil={"teacher": str(tiny.teacher(tmp_path, "cnn", seed=8))}, train={"steps": 6})
    with pytest.raises(UserError, match=r"another config: distil\.source differs"):
        train(moved, whole)


@pytest.mark.parametrize(
    ("distil", "sentence"),
    [
        ({"width": 0}, "distil.width is 0, but it must be between 1 and 65536"),
        ({"temperature": 1e7}, r"distil.temperature is 10000000.0, but it must be positive and at most 1e\+06"),
        ({"embedding": -1.0}, "distil.embedding is -1.0, but it must be between 0 and 1e"),
        ({"label": float("nan")}, r"^distil.label is nan, but it must be between 0 and 1e\+06; None takes [a-z ]*\.$"),
        ({"method": "kd", "logits": 0.0, "cache": "x"}, "distil.cache is 'x', but it must be None where every part"),
        ({"method": "kd", "embedding": 1.0}, "distil.embedding is 1.0, but it must be 0 for distil.method 'kd'"),
        ({"regression": 1.0}, "distil.regression is 1.0, but it must be 0 for distil.method 'align_uniform'"),
        ({"label": 0.0, "embedding": 0.0, "logits": 0.0}, "distil.label is 0.0, but it must be positive where"),
    ],
)
def test_impossible_settings(tmp_path, distil, sentence):
    with pytest.raises(UserError, match=sentence):
        tiny.run(tmp_path, **distil)


def test_what_does_not_go_together(tmp_path):
    config = tiny.run(tmp_path, cache="cache")
    with pytest.raises(UserError, match=r"distil\.cache is 'cache', but it must be None with augment\.crop"):
        change(config, augment={"crop": 1})
    with pytest.raises(UserError, match=r"distil\.cache is 'cache', but it must be None with data\.flip"):
        change(config, data={"flip": True})
    with pytest.raises(UserError, match=r"train\.batch is 1, but it must be 2 or more"):
        tiny.run(tmp_path, "vit", train={"batch": 1})
    with pytest.raises(UserError, match=r"augment\.mixup is 0\.2, but it must be 0 for 'crd'"):
        change(tiny.run(tmp_path, method="crd"), augment={"mixup": 0.2})
    with pytest.raises(UserError, match=r"train\.accumulate is 2, .* distil\.method 'align_uniform' needs the whole"):
        train(tiny.run(tmp_path, "vit", train={"accumulate": 2}), tmp_path / "micro")
    assert not (tmp_path / "micro").exists()


def test_a_teacher_that_does_not_fit(tmp_path):
    names = tiny.names()
    odd = {
        "renamed": ((*names[:9], "ten"), "class 9 is 'ten' there and '9' in the data"),
        "swapped": ((names[1], names[0], *names[2:]), "class 0 is '1' there .* in another order"),
    }
    for i, (folder, (given, sentence)) in enumerate(odd.items()):
        path = tiny.teacher(tmp_path / folder, seed=i, class_names=given)
        config = change(tiny.run(tmp_path), distil={"teacher": str(path)})
        with pytest.raises(UserError, match=f"distil.teacher is .*{sentence}"):
            train(config, str(tmp_path / "run"))
    fewer = change(tiny.run(tmp_path), data={"classes": tuple(range(9))}, model={"num_classes": 9})
    with pytest.raises(UserError, match="it has 10 and the data 9"):
        train(fewer, tmp_path / "run")
    for where, sentence in ((None, "missing"), ("nowhere", "nowhere', but it must be a classifier")):
        with pytest.raises(UserError, match=f"distil.teacher is .*{sentence}"):
            train(change(tiny.run(tmp_path), distil={"teacher": where}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_student_that_was_trained_before(tmp_path):
    """Its weights are step 0; it goes on without --init, and not from other ones."""
    file, before = (
        _preset(tmp_path, tiny.run(tmp_path, "vit", "cnn", train={"steps": 2})),
        tiny.teacher(tmp_path, "vit"),
    )
    args = ["train", "--config", file, "--workdir", str(tmp_path / "run"), "--optimizer.learning-rate", "1e-30"]
    assert main([*args, "--init", str(before), "--stop-after", "1"]) == 0
    found, wanted = (open_bundle(f, weights="raw").collections["params"] for f in (tmp_path / "run", before))
    chex.assert_trees_all_close(found, wanted, atol=1e-6)
    assert main(args) == 0
    assert main([*args, "--init", str(tiny.teacher(tmp_path, "vit", 3))]) == 2


def test_from_the_command_line(tmp_path, capsys):
    """What is refused ends with 2; a run goes on without being told its teacher's hash."""
    file = _preset(tmp_path, tiny.run(tmp_path, "vit", "cnn"))
    args = ["train", "--config", file, "--workdir", str(tmp_path / "run")]
    assert main([*args, "--distil.width", "0"]) == 2
    assert "distil.width is 0" in capsys.readouterr().err
    assert main([*args, "--distil.teacher", str(tmp_path)]) == 2
    assert "is neither a run" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*args, "--stop-after", "2"]) == 0
    assert main(args) == 0
    assert load_config(tmp_path / "run").distil.source is not None
    assert main(["plan", "--config", file, "--mesh", "2x2", "--chip", "h100"]) == 0


def _preset(folder, config):
    """A file that gives a config."""
    file = folder / "preset.py"
    lines = ["from kind_jax.config import from_json", "", "", "def get_config():"]
    file.write_text("\n".join([*lines, f"    return from_json({to_json(config)!r}, 'here')", ""]))
    return str(file)
