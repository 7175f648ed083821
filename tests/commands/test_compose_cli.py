"""Composing, growing and shrinking from the command line."""

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
    assert "composed for d" in out
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
    assert "classes that are left: 1 b, 3 d" in capsys.readouterr().out
    assert main(["grow", str(tmp_path / "two"), "--fresh", "cat, dog", "--out", str(tmp_path / "four")]) == 0
    assert "added 4 cat, 5 dog" in capsys.readouterr().out
    grown = open_bundle(tmp_path / "four")
    assert served(grown) == (1, 3, 4, 5)
    other = write(tmp_path / "other", "wxyz", 1)
    assert main(["grow", str(source), "--add", str(other), "--out", str(tmp_path / "no")]) == 2
    assert capsys.readouterr().err.count("SHA-256") == 1
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["compose", "--classes", "9"], "class is 9, but it must be between 0 and 3"),
        (["compose", "--classes", "3", "--max-params", "many"], "--max-params is 'many', but it must be"),
        (["compose", "--classes", "3", "--max-flops", "0"], "--max-flops is '0', but"),
        (["compose", "--classes", "3", "--max-params", "1k"], "max_params is 1000, but it must be"),
        (["compose", "--classes", "3", "--plot", "x.pdf"], "must end in .png"),
        (["grow"], "either --add or --fresh must be given"),
        (["grow", "--fresh", "x,"], "--fresh is 'x,', but it must be class names"),
        (["grow", "--fresh", "a"], "named 'a', but a class of that name exists already"),
        (["shrink", "--drop", "x"], "--drop is 'x', but it must be class numbers"),
        (["shrink", "--drop", "0-3"], "at least one class must stay"),
    ],
)  # fmt: skip
def test_mistakes(source, args, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([args[0], str(source), *args[1:], "--out", "new"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
