"""Composing, growing and shrinking from the command line."""

import chex
import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from kind_jax.cli import main
from kind_jax.deploy import artifact
from kind_jax.deploy.bundle import open_bundle
from kind_jax.deploy.groups import served

CONFIG = tiny.change(tiny.CONFIG, model={"num_classes": 4})


def write(directory, names, seed, **settings):
    config = tiny.change(CONFIG, model=settings)
    artifact.write(
        directory, config=config, collections=jax.tree.map(np.asarray, tiny.weights(config.model, seed=seed)),
        groups=range(config.model.num_groups), class_names=names, weights="ema", step=3,
    )  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("source") / "art", "abcd", 0)


def test_compose_sample_inspect_export(source, tmp_path, capsys):
    args = ["compose", str(source), "--classes", "3", "--max-params", "11k", "--out", str(tmp_path / "small")]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "1/mlp_out" in out
    assert "composed for 3 d" in out
    found = open_bundle(tmp_path / "small")
    assert sum(a.size for a in jax.tree.leaves(found.collections)) <= 11_000
    assert (found.groups, found.composition.max_params) == ((3,), 11_000)
    assert np.asarray(Image.open(tmp_path / "small_composition.png")).std() > 0
    assert main(["sample", str(tmp_path / "small"), "--rows", "2", "--out", str(tmp_path / "x.png")]) == 0
    assert "columns: d" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "small")]) == 0
    assert "MFLOPs" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "small"), "--out", str(tmp_path / "copy")]) == 0
    assert open_bundle(tmp_path / "copy").composition == found.composition
    # Two classes by FLOPs, in place of the first.
    args = ["compose", str(source), "--classes", "1,3", "--max-flops", "80k", "--out", str(tmp_path / "small")]
    assert main(args) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*args, "--replace", "--plot", str(tmp_path / "bars.png")]) == 0
    assert (tmp_path / "bars.png").is_file()
    assert open_bundle(tmp_path / "small").groups == (1, 3)


def test_shrink_then_grow(source, tmp_path, capsys):
    assert main(["shrink", str(source), "--drop", "0,2", "--out", str(tmp_path / "two")]) == 0
    assert "classes that are left: 1 b and 3 d" in capsys.readouterr().out
    assert main(["grow", str(tmp_path / "two"), "--fresh", "cat, dog", "--out", str(tmp_path / "four")]) == 0
    assert "added classes 4 cat and 5 dog;" in capsys.readouterr().out
    grown = open_bundle(tmp_path / "four")
    assert served(grown) == (1, 3, 4, 5)
    other = write(tmp_path / "other", "wxyz", 1)
    assert main(["grow", str(source), "--add", str(other), "--out", str(tmp_path / "no")]) == 2
    assert capsys.readouterr().err.count("SHA-256") == 1
    assert not (tmp_path / "no").exists()


def sibling(directory, names, seed):
    """Another model on the learngenes and dense parameters of ``source``, null row included, with its own tailors."""
    config = tiny.change(CONFIG, model={"num_classes": len(names)})
    old, own = (tiny.weights(c.model, seed=s) for c, s in ((CONFIG, 0), (config, seed)))
    rows, null = (np.asarray(p["params"]["label_embed"]["table"]) for p in (own, old))
    params = {**old["params"], "label_embed": {"table": np.concatenate([rows[:-1], null[-1:]])}}
    parts = jax.tree.map(np.asarray, {**old, "tailors": own["tailors"], "params": params})
    artifact.write(
        directory, config=config, collections=parts,
        groups=range(len(names)), class_names=names, weights="ema", step=3,
    )  # fmt: skip
    return str(directory)


def test_repeated_options_mean_all_and_classes_go_by_name(source, tmp_path, capsys):
    one, two = sibling(tmp_path / "one", ("4",), 1), sibling(tmp_path / "two", ("bear", "7"), 2)
    assert main(["grow", str(source), "--add", one, "--add", two, "--out", str(tmp_path / "seven")]) == 0
    assert "added classes 4, 5 bear and 6 (named 7); the 4 classes before keep" in capsys.readouterr().out
    seven = open_bundle(tmp_path / "seven")
    assert seven.class_names == (*"abcd", "4", "bear", "7")
    bank = seven.collections["tailors"]
    for row, (path, own) in enumerate(((one, 0), (two, 0), (two, 1)), start=4):
        added = open_bundle(path).collections["tailors"]
        chex.assert_trees_all_equal(
            jax.tree.map(lambda a, i=row: a[i], bank), jax.tree.map(lambda a, i=own: a[i], added)
        )

    shrink = ["shrink", str(tmp_path / "seven"), "--drop", "bear", "--drop", "0", "b", "--out", str(tmp_path / "four")]
    assert main(shrink) == 0
    assert served(open_bundle(tmp_path / "four")) == (2, 3, 4, 6)
    fresh = ["grow", str(source), "--fresh", "x", "y", "--fresh", "z,w", "--out", str(tmp_path / "eight")]
    assert main(fresh) == 0
    assert open_bundle(tmp_path / "eight").class_names == tuple("abcdxyzw")

    capsys.readouterr()
    pictures = []
    for i, classes in enumerate((["3", "--classes", "1"], ["d,b"], ["d", "b"], ["d", "--classes=1"])):
        out = tmp_path / f"{i}.png"
        args = ["sample", str(source), "--rows", "2", "--steps", "1", "--out", str(out), "--classes", *classes]
        assert main(args) == 0
        assert "columns: d, b " in capsys.readouterr().out
        pictures.append(out.read_bytes())
    assert len(set(pictures)) == 1
    assert main(["compose", str(source), "--classes", "b", "--classes", "3", "--out", str(tmp_path / "pair")]) == 0
    pair = open_bundle(tmp_path / "pair").composition
    assert pair is not None
    assert pair.classes == (1, 3)
    assert main(["export", str(source), "--classes", "b", "--classes", "3", "--out", str(tmp_path / "copy")]) == 0
    assert open_bundle(tmp_path / "copy").groups == (1, 3)
    assert main(["sample", str(source), "--seed", "1", "--seed", "2"]) == 2
    assert "--seed is given twice, as '1' and '2'" in capsys.readouterr().err


def test_a_number_is_a_number_and_this_is_said(source, tmp_path, capsys):
    turned = write(tmp_path / "turned", "3210", 0)
    args = ["sample", str(turned), "--rows", "1", "--steps", "1", "--out", str(tmp_path / "x.png"), "--classes"]
    assert main([*args, "3"]) == 0
    printed = capsys.readouterr()
    assert "columns: 0 " in printed.out
    assert "class number 3, which is named '0'; the class that is named '3' has the number 0" in printed.err
    late = write(tmp_path / "late", "6789", 0)
    assert main(["inspect", str(late), "--classes", "8"]) == 2
    assert "between 0 and 3 (the class that is named '8' has the number 2)" in capsys.readouterr().err
    assert not list(tmp_path.glob("late_*"))


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("name", ["tailors", "params"])
def test_weights_that_cannot_be_computed_with_give_no_picture(value, name, tmp_path, capsys):
    weights = jax.tree.map(np.array, tiny.weights(CONFIG.model))
    leaf = (
        weights["tailors"]["blocks"]["mlp_out"]["v_t"][2]
        if name == "tailors"
        else weights[name]["final"]["linear"]["kernel"]
    )
    leaf[..., :2] = value
    artifact.write(
        tmp_path / "art", config=CONFIG, collections=weights, groups=range(4), class_names="abcd", weights="ema", step=3
    )
    args = ["sample", str(tmp_path / "art"), "--rows", "1", "--steps", "1", "--out", str(tmp_path / "x.png")]
    assert main([*args, "--classes", "2"]) == 2
    where = "blocks/mlp_out/v_t" if name == "tailors" else "final/linear/kernel"
    said = capsys.readouterr().err
    assert f"{name}/{where}" in said
    assert ("the largest weight is 3e+38" if np.isfinite(value) else "values that are NaN or infinite") in said
    assert not (tmp_path / "x.png").exists()
    if name == "tailors":  # the others are what they were
        assert main([*args, "--classes", "1"]) == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["compose", "--classes", "9"], "a class of --classes is 9, but it must be between 0 and 3"),
        (["compose", "--classes", "3", "--max-params", "many"], "--max-params is 'many', but it must be"),
        (["compose", "--classes", "3", "--max-flops", "0"], "--max-flops is '0', but"),
        (["compose", "--classes", "3", "--max-params", "1k"], "max_params is 1000, but it must be"),
        (["compose", "--classes", "3", "--plot", "x.pdf"], "must end in .png"),
        (["grow"], "either --add or --fresh must be given"),
        (["grow", "--fresh", "x,"], "--fresh is 'x,', but it must be class names"),
        (["grow", "--fresh", "a"], "named 'a', but a class of that name exists already"),
        (["grow", "--fresh", "x", "--add", "y"], "either --add or --fresh must be given"),
        (["grow", "--fresh", "x", "--seed", "-1"], "--seed is -1, but it must be a whole number between 0 and"),
        (["shrink", "--drop", "x"], "a class of --drop is 'x', but no class has this name: the classes are 0 a, 1 b"),
        (["shrink", "--drop", "1,,2"], "--drop is '1,,2', but it must be classes by number or name"),
        (["shrink", "--drop"], "--drop is given without a value"),
        (["shrink", "--drop", "0-3"], "at least one class must stay"),
    ],
)  # fmt: skip
def test_mistakes(source, args, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([args[0], str(source), *args[1:], "--out", "new"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
