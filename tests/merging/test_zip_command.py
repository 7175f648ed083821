"""`kind-jax zip` from end to end, and what it refuses."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax import model
from kind_jax.classifying import network
from kind_jax.classifying.config import ClassifyRun
from kind_jax.cli import main
from kind_jax.config import Config, DataConfig, FactorConfig, ModelConfig
from kind_jax.config.networks import ResNetConfig, ViTConfig, ZippedConfig
from kind_jax.deploy.bundle import Bundle, export, open_bundle
from kind_jax.merging import evaluate, models_of, open_tasks
from kind_jax.merging.factors import multiplied_out
from kind_jax.nn.gate import learngenes_only

VIT = ViTConfig(size=8, channels=1, patch=4, width=16, depth=2, heads=2, num_classes=2)
NAMES = tuple("0123456789")


def artifact(folder, seed, network=VIT, classes=None, **data):
    """A model of some digits that nobody has trained."""
    numbers = tuple(range(seed * 2, seed * 2 + 2)) if classes is None else classes
    network = dataclasses.replace(network, num_classes=len(numbers))
    config = ClassifyRun(model=network, data=DataConfig(source="digits", classes=numbers, **data))
    bundle = Bundle(
        config=config, collections=model.init(network, seed), groups=(0,), class_names=tuple(NAMES[i] for i in numbers),
        weights="raw", step=0, origin=folder,
    )  # fmt: skip
    export(bundle, folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [artifact(folder / name, seed) for seed, name in enumerate("abcd")]


def figures(out):
    return json.loads(Path(f"{out}_zip.json").read_text())


def test_from_two_models_to_one_and_on(models, tmp_path, capsys):
    """Merged, measured, opened, evaluated, and trained on."""
    out = tmp_path / "ab"
    assert main(["zip", str(models[0]), str(models[1]), "--to", "1", "--out", str(out), "--images", "100"]) == 0
    said, found = capsys.readouterr().out, figures(out)
    for text in ("features that became one", "blocks/mlp_in[0]", "A alone", "ensemble", "ab_zip.png"):
        assert text in said
    assert Path(f"{out}_zip.png").read_bytes().startswith(b"\x89PNG")
    by_name = {node["name"]: node for node in found["nodes"]}
    assert by_name["patch_embed"]["method"] == "orthogonal"
    assert by_name["blocks/attention/qkv[0] (queries and keys)"]["method"] == "permute"
    assert "blocks/mlp_in[1]" not in by_name
    hidden = by_name["blocks/mlp_in[0]"]
    assert hidden["features"] == 64 == hidden["across"] + hidden["within"]
    assert sum((i + 1) * count for i, count in enumerate(hidden["sizes"])) == 128
    assert found["images"] == 100
    assert 1 < found["parameters"]["merged"] / found["parameters"]["one model"] < 2
    assert found["flops"]["merged"] < found["flops"]["ensemble"]

    bundle = open_bundle(out)
    assert isinstance(bundle.config.model, ZippedConfig)
    assert bundle.class_names == ("0", "1", "2", "3")
    assert main(["evaluate", str(out), "--out", str(tmp_path / "measured")]) == 0
    measured = json.loads((tmp_path / "measured" / "evaluation.json").read_text())
    assert measured["figures"]["top1"] == pytest.approx(found["accuracy"]["merged"]["joint"])

    run = ["--config", "vit_digits", "--init", str(out), "--workdir", str(tmp_path / "run")]
    assert main(["train", *run, "--train.steps", "2", "--train.batch", "8", "--data.classes", *"0123"]) == 0
    assert isinstance(open_bundle(tmp_path / "run").config.model, ZippedConfig)


@pytest.mark.slow
def test_merged_models_are_merged_again(models, tmp_path):
    for pair, name in ((models[:2], "ab"), (models[2:], "cd")):
        assert main(["zip", *map(str, pair), "--to", "1", "--out", str(tmp_path / name)]) == 0
    whole = tmp_path / "abcd"
    assert main(["zip", str(tmp_path / "ab"), str(tmp_path / "cd"), "--to", "1", "--out", str(whole)]) == 0
    assert open_bundle(whole).class_names == NAMES[:8]


def test_nothing_merged_is_the_ensemble(models, tmp_path):
    out = tmp_path / "both"
    assert main(["zip", *map(str, models[:2]), "--to", "0", "--out", str(out)]) == 0
    found = figures(out)
    assert found["accuracy"]["merged"] == found["accuracy"]["ensemble"]
    assert found["nodes"] == []
    bundles = [open_bundle(each) for each in models[:2]]
    tests = open_tasks(bundles, None, "test")
    scores = [evaluate.alone(each, i, tests) for i, each in enumerate(models_of(bundles, 0))]
    assert [s.tasks[i] for i, s in enumerate(scores)] == found["accuracy"]["ensemble"]["tasks"]


def test_models_of_the_same_classes(tmp_path):
    """The last layers are averaged, and a plain network comes out; one model twice is itself."""
    a, b = (artifact(tmp_path / name, 0, classes=(0, 1, 2)) for name in "ab")
    out = tmp_path / "one"
    assert main(["zip", str(a), str(b), "--to", "all", "--out", str(out), "--stream", "permute"]) == 0
    accuracy = figures(out)["accuracy"]
    assert accuracy["merged"] == accuracy["A alone"]
    for old, new in zip(*(jax.tree.leaves(open_bundle(p).collections) for p in (a, out)), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-5)


@pytest.mark.slow
def test_factored_projections_are_multiplied_out(models, tmp_path):
    factored = dataclasses.replace(VIT, factor=FactorConfig(projections=("q", "v", "mlp_in"), learngenes=16, tailors=1))
    a = artifact(tmp_path / "a", 0, factored)
    assert main(["zip", str(a), str(models[1]), "--to", "head", "--out", str(tmp_path / "out")]) == 0
    assert not open_bundle(tmp_path / "out").collections["learngenes"]
    source = open_bundle(a)
    images = np.random.default_rng(0).standard_normal((4, 8, 8, 1)).astype(np.float32)
    want, got = (
        network.logits(config, jax.tree.map(jnp.asarray, weights), jnp.asarray(images), learngenes_only())[0]
        for config, weights in (
            (source.config.model, source.collections),
            multiplied_out(source.config.model, source.collections),
        )
    )
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.fixture(scope="module")
def others(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    artifact(folder / "wide", 1, dataclasses.replace(VIT, width=32))
    artifact(folder / "resnet", 1, ResNetConfig(size=8, channels=1, stages=(1, 1, 1), width=0.25))
    artifact(folder / "overlap", 0, classes=(1, 2))
    gated = dataclasses.replace(
        VIT, groups=(0, 1), gate="superclass", factor=FactorConfig(projections=("mlp_in",), learngenes=8, tailors=2)
    )
    config = ClassifyRun(model=gated, data=DataConfig(source="digits", classes=(2, 3)))
    bundle = Bundle(
        config=config, collections=model.init(gated, 0), groups=(0, 1), class_names=("2", "3"), weights="raw", step=0,
        origin=folder,
    )  # fmt: skip
    export(bundle, folder / "gated")
    dit = ModelConfig(size=8, channels=1, patch=2, width=16, depth=1, heads=2, num_classes=2)
    generator = Config(model=dit, data=DataConfig(source="digits", classes=(2, 3)))
    bundle = dataclasses.replace(bundle, config=generator, collections=model.init(dit, 0))
    export(bundle, folder / "dit")
    broken = model.init(VIT, 0)
    broken["params"]["patch_embed"]["bias"] = np.full(16, np.inf, np.float32)
    return folder


BAD = [
    (["A"], r"the number of models is 1, but merging takes two or more"),
    (["A", "wide"], r"model\.width is 16 in one model and 32 in another"),
    (["A", "resnet"], r"the models are a ViT and a ResNet, but must be of one architecture"),
    (["A", "overlap"], r"the class '1' is in .* and in .*overlap, but each model must have classes of its own"),
    (["A", "B", "--to", "all"], r"to is 'all', which averages the last layers too, but the classes of .* are others"),
    (["A", "gated"], r"tailors that its gate switches on.* compose it first"),
    (["A", "dit"], r"is of the kind 'diffusion'.*, but it must be 'classification' here"),
    (["A", "nothing"], r"nothing.* (no|neither|nor)"),
    (["A", "B", "--to", "5"], r"to is 5, but it must be a whole number from 0 to 3, or 'all'"),
    (
        ["A", "B", "--to", "stage"],
        r"--to is 'stage', but it must be the number of a stage or block, or 'head', or 'all'",
    ),
    (["A", "B", "--alpha", "2"], r"alpha is 2.0, but it must be at most 1"),
    (["A", "B", "--beta", "-1"], r"beta is -1.0, but it must be between 0 and 1"),
    (["A", "B", "--images", "2"], r"images is 2, but it must be a whole number from 4 to"),
    (["A", "B", "--images", "4"], r"features of blocks/mlp_in\[0\] were seen 20 times.*must be 64 times or more"),
    (["A", "B", "--batch", "1"], r"batch is 1, but it must be 2 or more"),
    (["A", "B", "--data", "glyphs"], r"the classes of the data are .*, but those of .*a are 0, 1"),
    (["A", "B", "--data", "no-such-folder"], r"no-such-folder"),
    (["A", "B", "C", "--method", "optimal"], r"models is 3, but it must be 2 for method 'optimal'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input(options, message, models, others, tmp_path, capsys):
    """One sentence, exit code 2, and nothing is written."""
    where = {"A": models[0], "B": models[1], "C": models[2]}
    given = [str(where.get(o, others / o if (others / o).exists() or o == "nothing" else o)) for o in options]
    assert main(["zip", *given, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1
    assert re.search(message, said), said
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(models, tmp_path, capsys):
    for name in ("out", "out_zip.json"):
        place = tmp_path / name
        place.mkdir() if name == "out" else place.write_text("mine")
        assert main(["zip", *map(str, models[:2]), "--out", str(tmp_path / "out")]) == 2
        assert "exists already (--replace" in capsys.readouterr().err
        place.rmdir() if name == "out" else place.unlink()
    (tmp_path / "out").mkdir()
    assert main(["zip", *map(str, models[:2]), "--out", str(tmp_path / "out"), "--replace"]) == 2
    assert "which is no artifact" in capsys.readouterr().err
