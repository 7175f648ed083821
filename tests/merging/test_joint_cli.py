"""``kind-jax merge`` from runs on disk to a model that trains further; what is refused leaves nothing behind."""

import dataclasses

import chex
import jax
import numpy as np
import pytest
import tiny
from classifying import tiny_classifier
from command_lines import changed

from kind_jax import model
from kind_jax.classifying.config import ClassifyRun
from kind_jax.cli import main
from kind_jax.config.presets import preset
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy.bundle import Bundle, export, open_bundle
from kind_jax.merging import merge_record
from kind_jax.partition import fingerprint
from kind_jax.transferring import whole

KIND = tiny.change(tiny.CONFIG, model={"num_classes": 5, "label_embedding": False})


def save(folder, config, seed, names):
    bundle = Bundle(
        config=config, collections=jax.tree.map(np.asarray, tiny.weights(config.model, seed=seed)),
        groups=tuple(range(config.model.num_groups)), class_names=names, weights="ema", step=seed, origin=folder,
    )  # fmt: skip
    export(bundle, folder)
    return bundle


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for i, name in enumerate(("low", "high")):
        digits = tuple(range(5 * i, 5 * i + 5))
        config = dataclasses.replace(KIND, data=dataclasses.replace(KIND.data, classes=digits))
        save(folder / name, config, i, tuple(map(str, digits)))
    low, other = open_bundle(folder / "low"), save(folder / "another", KIND, 3, tuple("abcde"))
    related = {**low.collections, "tailors": other.collections["tailors"]}
    export(dataclasses.replace(other, collections=related), folder / "related")
    wide = tiny.change(KIND, model={"width": 32})
    save(folder / "wide", wide, 2, tuple("abcde"))
    classifier = Bundle(
        config=ClassifyRun(model=tiny_classifier.VIT), collections=model.init(tiny_classifier.VIT, 0), groups=(0,),
        class_names=tuple("0123456789"), weights="ema", step=0, origin=folder,
    )  # fmt: skip
    export(classifier, folder / "classifier")
    return folder


def test_two_models_become_one_that_can_be_trained_further(models, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["merge", str(models / "low"), str(models / "high"), "--out", "merged", "--tailors", "3"]) == 0
    said = capsys.readouterr().out
    for part in ("1/mlp_out", "of tailors", "dense parameters that differ most", "all of them", "merged_merge.json"):
        assert part in said
    found = merge_record.read(tmp_path / "merged_merge.json")
    assert (found.method, [m.origin for m in found.models]) == ("joint", ["low", "high"])
    assert {(layer.learngenes, layer.tailors) for layer in found.layers} == {(6, 3)}
    assert (tmp_path / "merged_merge.png").read_bytes().startswith(b"\x89PNG")
    merged = open_bundle("merged")
    assert merged.class_names == tuple("0123456789")
    assert merged.config.data.classes == tuple(range(10))
    # What `kind-jax train --config digits --init merged` begins from.
    config = whole.adopt(preset("digits"), whole.settings_of(tmp_path / "merged"))
    config, weights = whole.begin(config, merged)
    assert whole.check_classes(merged, open_dataset(config.data, "train").class_names) is None
    assert (config.model.tailors, config.transfer.source) == (3, fingerprint(merged.collections))
    chex.assert_trees_all_equal_shapes(weights, model.init(config.model, 0))


def test_related_models_are_joined_without_a_plot(models, tmp_path, capsys):
    line = ["merge", str(models / "low"), str(models / "related"), "--out", str(tmp_path / "merged")]
    assert main(line) == 0
    assert "joined exactly" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["merged", "merged_merge.json"]
    assert open_bundle(tmp_path / "merged").class_names == (*"01234", *"abcde")
    assert main(line) == 2
    assert main([*line, "--replace", "--method", "average"]) == 0
    assert merge_record.read(tmp_path / "merged_merge.json").method == "average"


REFUSED = {
    "one model": (["low"], [], "number of models is 1"),
    "sizes": (["low", "wide"], [], "model.width"),
    "the same classes": (["low", "low"], [], "class '0' is in"),
    "a classifier": (["low", "classifier"], [], "is of the kind 'classification', but it must be 'diffusion' here"),
    "no model": (["low", "nothing"], [], "is neither a run"),
    "an --out that exists": (["low", "high"], ["--out", "there"], "exists already"),
    "a plot that is no picture": (["low", "high"], ["--plot", "a.txt"], "must end in .png"),
    "learngenes": (["low", "high"], ["--learngenes", "many"], "--learngenes is 'many'"),
    "more than the rank": (["low", "high"], ["--learngenes", "99"], "learngenes is 99, but it must be at most 16"),
    "tailors": (["low", "high"], ["--tailors", "0"], "--tailors is 0"),
    "not exact": (["low", "high"], ["--method", "exact"], "the learngenes of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_nothing_behind(case, models, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    names, changes, said = REFUSED[case]
    line = changed(["merge", *(str(models / name) for name in names), "--out", "new"], *changes)
    assert main(line) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
