"""Runs of classifiers: on the one trainer, with all that other runs have."""

import dataclasses
import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classifying import tiny_classifier as tiny
from kind_jax import partition
from kind_jax.classifying import best
from kind_jax.classifying.accuracy import measure
from kind_jax.classifying.config import ClassifyRun
from kind_jax.classifying.predict import classify
from kind_jax.cli import main
from kind_jax.config import DataConfig, MeshConfig, from_json, to_json
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.deploy.bundle import export, open_bundle
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import sharding, step
from kind_jax.train import state as states
from kind_jax.train.loop import train
from kind_jax.train.metrics import read_metrics

CONFIGS = {"vit": tiny.run(), "kind": tiny.run(tiny.KIND), "resnet": tiny.run(tiny.RESNET)}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """A function: the name of a config to a finished run of it, trained once."""

    @functools.cache
    def of(name):
        folder = tmp_path_factory.mktemp(name) / "whole"
        train(CONFIGS[name], folder)
        return folder

    return of


@pytest.fixture(scope="module", params=["kind", "resnet", pytest.param("vit", marks=pytest.mark.slow)])
def trained(request, run_of, tmp_path_factory):
    """A run in one go, and the same in two."""
    config, parts = CONFIGS[request.param], tmp_path_factory.mktemp(request.param) / "parts"
    train(config, parts, stop_after=5)
    train(config, parts)
    return config, run_of(request.param), parts


def test_a_resumed_run_is_the_same_to_the_bit(trained):
    _, whole, parts = trained
    for weights in ("ema", "raw", "best"):
        a, b = (open_bundle(folder, weights=weights) for folder in (whole, parts))
        chex.assert_trees_all_equal(a.collections, b.collections)
        assert isinstance(a.config, ClassifyRun)
    logged = [
        [{k: v for k, v in line.items() if not k.endswith("_per_second") and k not in
          ("input_wait", "checkpoint_stall", "watching", "mfu")} for line in read_metrics(f / "metrics.jsonl")]
        for f in (whole, parts)
    ]  # fmt: skip
    assert logged[0] == logged[1]
    assert [line["step"] for line in logged[0] if "validation_top1" in line] == [4, 8]
    if "stats" in open_bundle(whole).collections:
        # The statistics of the average are averaged like its weights.
        a, b = (open_bundle(whole, weights=w).collections["stats"] for w in ("ema", "raw"))
        assert any(bool((x != y).any()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_an_artifact_is_split_and_read_in_parts(trained, tmp_path):
    config, whole, _ = trained
    bundle = open_bundle(whole)
    manifest = export(bundle, tmp_path / "art")
    assert manifest["config"]["task"] == "classification"
    files = set(manifest["files"])
    gated = {"tailors/0.safetensors", "tailors/1.safetensors", "learngenes.safetensors"}
    assert files - {"stats.safetensors"} == {"params.safetensors"} | (gated if config.model.gated else set())
    assert ("stats.safetensors" in files) == ("stats" in bundle.collections)
    again = open_bundle(tmp_path / "art")
    chex.assert_trees_all_equal(again.collections, bundle.collections)
    images = open_dataset(config.data, "test").source.gather(np.arange(6))["image"]
    if not config.model.gated:
        chex.assert_trees_all_close(classify(again, images), classify(bundle, images))
        assert classify(again, images).sum(axis=1) == pytest.approx(1, abs=1e-5)
        return
    (tmp_path / "art" / "tailors" / "0.safetensors").unlink()  # a device that serves the odd digits alone
    odd = open_bundle(tmp_path / "art", classes=[1, 3])
    assert odd.groups == (1,)
    chex.assert_trees_all_close(classify(odd, images, superclass=1), classify(bundle, images, superclass=1), atol=1e-6)
    assert classify(odd, images, superclass=1)[:, ::2].max() == 0
    with pytest.raises(UserError, match=r"superclass is 0, but it must be one of the groups that .* serves: 1"):
        classify(odd, images, superclass=0)


def test_best_weights_say_by_which_split_they_were_chosen(trained):
    config, whole, _ = trained
    found = best.read(whole)
    assert found is not None
    lines = {
        line["step"]: line["validation_top1"]
        for line in read_metrics(whole / "metrics.jsonl")
        if "validation_top1" in line
    }
    assert found.split == "validation"
    assert found.top1 == pytest.approx(max(lines.values()))
    assert found.step == min(s for s, value in lines.items() if value == max(lines.values()))
    assert found.count == len(open_dataset(config.data, "validation").source)
    assert open_bundle(whole, weights="best").step == found.step


def test_evaluate_and_report(trained, capsys):
    config, whole, _ = trained
    assert main(["evaluate", str(whole), "--weights", "best", "--batch", "64"]) == 0
    record = json.loads((whole / "evaluation" / "evaluation.json").read_text())
    assert record["images"] == 500 == sum(map(sum, record["confusion"]))
    assert record["figures"]["top1"] == pytest.approx(np.trace(record["confusion"]) / 500)
    assert record["chosen"]["split"] == "validation"
    assert record["superclass_given"] == config.model.gated
    assert main(["evaluate", str(whole), "--weights", "best", "--split", "validation", "--batch", "64"]) == 0
    assert "chosen on the validation split" in capsys.readouterr().out
    assert main(["report", str(whole), "--batch", "64"]) == 0
    page = (whole / "report.html").read_text()
    assert all(word in page for word in ("top-1 accuracy", "What is taken for what", "Calibration"))
    assert main(["inspect", str(whole)]) == 0
    assert main(["sample", str(whole)]) == 2
    assert "is of the kind 'classification'" in capsys.readouterr().err


def test_the_split_is_a_part_of_the_training_images():
    data = DataConfig(source="digits", validation=0.2)
    whole, rest, held = (
        open_dataset(c, s).source
        for c, s in ((DataConfig(source="digits"), "train"), (data, "train"), (data, "validation"))
    )
    assert len(rest) + len(held) == len(whole)
    content = [{image.tobytes() for image in part.images} for part in (whole, rest, held)]
    assert content[1] | content[2] == content[0]
    assert not content[1] & content[2]
    assert np.bincount(held.labels).min() >= 20  # of every class its share


def test_figures_do_not_depend_on_batches_or_devices():
    config = CONFIGS["resnet"]
    weights = jax.tree.map(jnp.asarray, task_of(config).init())
    images = open_dataset(config.data, "test").source.gather(np.arange(50))
    dataset = Dataset(
        source=MemorySource(images=images["image"], labels=images["label"]), class_names=tuple("0123456789"),
        image_shape=(8, 8, 1), fingerprint={},
    )  # fmt: skip
    one, eight = (sharding.make_mesh(MeshConfig(), jax.devices()[:n]) for n in (1, 8))
    a = measure(config.model, jax.device_put(weights, sharding.replicated(one)), dataset, batch=50, mesh=one)
    b = measure(config.model, jax.device_put(weights, sharding.replicated(eight)), dataset, batch=16, mesh=eight)
    chex.assert_trees_all_equal(a.confusion, b.confusion)
    assert (a.count, a.top5) == (b.count, b.top5)
    assert a.loss == pytest.approx(b.loss, rel=1e-5)
    chex.assert_trees_all_close(a.bins, b.bins, rtol=1e-4)
    # By hand: the logits of all images at once.
    from kind_jax.classifying import network

    gate = network.gate_of(config.model, jnp.zeros(50, jnp.int32))
    p = np.asarray(jax.nn.softmax(network.logits(config.model, weights, jnp.asarray(images["image"]), gate)[0]))
    right, sure = p.argmax(1) == images["label"], p.max(1)
    assert a.top1 == pytest.approx(right.mean())
    assert a.top5 == sum(label in row for label, row in zip(images["label"], np.argsort(-p)[:, :5], strict=True))
    assert a.loss == pytest.approx(-np.log(p[np.arange(50), images["label"]]).mean(), rel=1e-4)
    bins = np.minimum((sure * 15).astype(int), 14)
    error = sum(abs(right[bins == i].sum() - sure[bins == i].sum()) for i in range(15)) / 50
    assert a.calibration_error == pytest.approx(error, abs=1e-5)


def test_the_mesh_does_not_change_a_step_with_statistics():
    """BatchNorm normalises by the whole batch, on however many devices; the step is compiled once."""
    config = dataclasses.replace(CONFIGS["resnet"], augment=dataclasses.replace(CONFIGS["resnet"].augment, erase=0.0))
    task = task_of(config)
    batch = {k: v[:16] for k, v in open_dataset(config.data, "train").source.gather(np.arange(16)).items()}

    def run(mesh, fsdp):
        chex.clear_trace_counter()
        devices = jax.devices()[:mesh]
        placed = sharding.make_mesh(MeshConfig(data=-1, fsdp=fsdp), devices)
        shapes = states.abstract(task)
        where = sharding.shard_like(shapes, placed, task.rules)
        begin = jax.jit(lambda c: states.start(task, c), out_shardings=where)
        state = begin(jax.device_put(jax.tree.map(np.asarray, task.init()), where.collections))
        f = jax.jit(
            chex.assert_max_traces(step.make_step(task), 1), donate_argnums=0,
            out_shardings=(where, sharding.replicated(placed)),
        )  # fmt: skip
        for _ in range(2):
            state, metrics = f(state, jax.device_put(batch, sharding.batch_sharding(placed)))
        return jax.device_get((state.collections, metrics["loss"]))

    chex.assert_trees_all_close(run(1, 1), run(8, 2), rtol=2e-3, atol=1e-4)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run without tailors, an average or best weights."""
    config = tiny.run(dataclasses.replace(tiny.VIT, drop_path=0.3), ema=None, steps=2, sample_every=0)
    folder = tmp_path_factory.mktemp("plain") / "run"
    train(config, folder)
    return folder


def test_stochastic_depth_and_no_average(plain):
    assert not [p.name for p in (plain / "checkpoints" / "2").iterdir() if p.name.startswith("ema")]
    bundle = open_bundle(plain)
    assert bundle.weights == "raw"
    with pytest.raises(UserError, match="keeps no average"):
        open_bundle(plain, weights="ema")


@pytest.mark.parametrize("name", ["resnet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vit", "kind"))])
def test_a_run_begins_from_another_classifier(name, run_of, tmp_path, capsys):
    config, whole = CONFIGS[name], run_of(name)
    line = [
        "train", "--config", "CONFIG", "--init", str(whole), "--workdir", str(tmp_path / "tuned"), "--train.steps", "1",
        "--optimizer.learning-rate", "1e-30", "--optimizer.warmup", "0", "--optimizer.warmup-start", "0",
    ]  # fmt: skip
    line[2] = str(tmp_path / "config.py")
    (tmp_path / "config.py").write_text(
        "from classifying import tiny_classifier as tiny\n\n\ndef get_config():\n    return tiny.run(tiny.RESNET)\n"
    )
    assert main([*line, "--model.depth", "32"]) == 2
    assert "model.depth is 32" in capsys.readouterr().err
    assert main(line) == 0
    tuned = open_bundle(tmp_path / "tuned", weights="raw")
    for name in ("params", "learngenes"):
        chex.assert_trees_all_close(tuned.collections[name], open_bundle(whole).collections[name], atol=1e-6)
    assert tuned.config.source == partition.fingerprint(open_bundle(whole).collections)
    assert main([*line[:3], *line[5:]]) == 0  # the run goes on without its source
    if config.model.gated:
        return
    few = [*line, "--head", "fresh", "--data.classes", "0", "1", "2", "--model.num-classes", "3"]
    few[few.index("--workdir") + 1] = str(tmp_path / "few")
    assert main(few) == 0
    found = open_bundle(tmp_path / "few", weights="raw")
    assert found.collections["params"]["head"]["bias"].shape == (3,)
    body = {k: v for k, v in found.collections["params"].items() if k != "head"}
    same = {k: v for k, v in open_bundle(whole).collections["params"].items() if k != "head"}
    chex.assert_trees_all_close(body, same, atol=1e-6)


def test_the_config_names_its_kind():
    for config in CONFIGS.values():
        assert from_json(to_json(config), "here") == config
        assert json.loads(to_json(config))["task"] == "classification"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": {"accumulate": 2}}, r"train.accumulate is 2, but it must be 1: BatchNorm needs the whole batch"),
        ({"model": {"num_classes": 7}}, r"--model.num-classes 10 would fit the data"),
        ({"model": {"size": 16}}, r"--model.size 8 --model.channels 1"),
        ({"optimizer": {"rules": (tiny.RuleConfig(path="params/none"),)}}, "must be the first to match a leaf"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_written(change, said, tmp_path):
    from kind_jax.config import change as changed

    with pytest.raises(UserError, match=said):
        train(changed(CONFIGS["resnet"], **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_config_of_another_kind_does_not_go_on(trained, capsys):
    _, whole, _ = trained
    assert main(["train", "--config", "digits", "--workdir", str(whole)]) == 2
    assert "task was 'classification', now 'diffusion'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def gated(run_of):
    return run_of("kind")


@pytest.mark.parametrize("form", ["dense", "factored"])
def test_a_superclass_is_served_by_a_plain_classifier(gated, form, tmp_path):
    bundle = open_bundle(gated)
    assert main(["compose", str(gated), "--superclass", "1", "--form", form, "--out", str(tmp_path / "odd")]) == 0
    odd = open_bundle(tmp_path / "odd")
    assert odd.class_names == ("1", "3", "5", "7", "9")
    assert not odd.collections["tailors"]
    assert bool(odd.collections["learngenes"]) == (form == "factored")
    images = open_dataset(bundle.config.data, "test").source.gather(np.arange(20))["image"]
    chex.assert_trees_all_close(classify(odd, images), classify(bundle, images, superclass=1)[:, 1::2], atol=1e-5)


def test_learngenes_move_to_other_classes(gated, tmp_path, capsys):
    line = [
        "transfer", str(gated), "--workdir", str(tmp_path / "run"), "--data.classes", "0", "1", "2", "3",
        "--model.num-classes", "4", "--model.groups", "0", "0", "1", "1", "--train.steps", "4",
    ]  # fmt: skip
    assert main(line) == 0
    found, source = open_bundle(tmp_path / "run", weights="raw"), open_bundle(gated)
    chex.assert_trees_all_equal(found.collections["learngenes"], source.collections["learngenes"])
    body = [{k: v for k, v in b.collections["params"].items() if k != "head"} for b in (found, source)]
    chex.assert_trees_all_equal(*body)
    fresh = task_of(dataclasses.replace(found.config, source=None, head="keep")).init()
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), found.collections["tailors"], fresh["tailors"])
    assert all(jax.tree.leaves(moved))
    assert main(line) == 0  # the same command finds its run finished
    assert main([*line, "--model.width", "32"]) == 2
    assert "model.width is 32, but the model that is transferred has 16" in capsys.readouterr().err


def test_what_makes_no_sense_is_refused(plain, tmp_path, capsys):
    for line, said in (
        (["compose", str(plain), "--superclass", "0", "--out", str(tmp_path / "o")], "no gated tailors"),
        (["transfer", str(plain), "--workdir", str(tmp_path / "t")], "--head fresh"),
        (["shrink", str(plain), "--out", str(tmp_path / "g"), "--drop", "0"], "of the kind"),
        (["export", str(plain), "--weights", "best", "--out", str(tmp_path / "b")], "has no best weights"),
    ):
        assert main(line) == 2
        assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_part_of_a_gated_classifier_is_measured_on_what_it_serves(gated, tmp_path, capsys):
    art = tmp_path / "art"
    export(open_bundle(gated), art)
    (art / "tailors" / "0.safetensors").unlink()
    assert main(["evaluate", str(art), "--classes", "1", "3", "--out", str(tmp_path / "part")]) == 0
    assert main(["evaluate", str(gated), "--out", str(tmp_path / "all")]) == 0
    part, whole = (json.loads((tmp_path / n / "evaluation.json").read_text()) for n in ("part", "all"))
    assert part["confusion"][1::2] == whole["confusion"][1::2]
    assert sum(map(sum, part["confusion"][::2])) == 0
    assert main(["compose", str(gated), "--superclass", "1", "--out", str(tmp_path / "odd")]) == 0
    assert main(["evaluate", str(tmp_path / "odd"), "--out", str(tmp_path / "of_odd")]) == 0
    odd = json.loads((tmp_path / "of_odd" / "evaluation.json").read_text())
    assert odd["confusion"] == [row[1::2] for row in whole["confusion"][1::2]]
    capsys.readouterr()
    assert main(["evaluate", str(art), "--classes", "1", "--out", str(art / "inside")]) == 2
    assert "inside the artifact" in capsys.readouterr().err


def test_images_of_a_plain_folder(gated, tmp_path, capsys):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in "0123456789":
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    line = ["evaluate", str(gated), "--data", str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    assert main(line) == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["images"] == 20
    assert main([*line, "--data.path", "elsewhere"]) == 2
    assert "with --data it must not be given" in capsys.readouterr().err


def test_best_weights_and_their_record_belong_together(gated, tmp_path, capsys):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(gated, run)
    record = (run / "best.json").read_text()
    (run / "best.json").write_text(record.replace('"manifest": "', '"manifest": "0'))
    assert main(["evaluate", str(run), "--weights", "best"]) == 2
    assert "is of other weights than those in" in capsys.readouterr().err
    (run / "best.json").unlink()
    assert main(["evaluate", str(run), "--weights", "best"]) == 2
    assert "but the best weights need both" in capsys.readouterr().err
    # A run that goes on chooses anew.
    found = best.Best(step=9, split="validation", top1=0.1, count=10)
    assert best.keep(run, CONFIGS["kind"], open_bundle(gated).collections, tuple("0123456789"), found)
    assert dataclasses.replace(best.read(run), manifest="") == found
    worse, better = (dataclasses.replace(found, step=10, top1=top1) for top1 in (0.1, 0.2))
    assert not best.keep(run, CONFIGS["kind"], open_bundle(gated).collections, tuple("0123456789"), worse)
    assert best.keep(run, CONFIGS["kind"], open_bundle(gated).collections, tuple("0123456789"), better)


def test_another_network_does_not_go_on(gated, tmp_path, capsys):
    (tmp_path / "config.py").write_text(
        "from classifying import tiny_classifier as tiny\n\n\ndef get_config():\n    return tiny.run(tiny.RESNET)\n"
    )
    assert main(["train", "--config", str(tmp_path / "config.py"), "--workdir", str(gated)]) == 2
    assert "model.network was 'vit', now 'resnet'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": np.zeros((2, 8, 9, 1), np.float32)}, r"images is \(2, 8, 9, 1\)"),
        ({"images": np.full((2, 8, 8, 1), np.nan, np.float32)}, "but it must be finite"),
        ({"superclass": True}, "superclass is True"),
        ({"superclass": None}, "superclass is None"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_python_refuses_what_it_cannot_classify(gated, given, said):
    arguments = {"images": np.zeros((2, 8, 8, 1), np.float32), "superclass": 0, "batch": 4, **given}
    with pytest.raises(UserError, match=said):
        classify(open_bundle(gated), arguments.pop("images"), **arguments)
