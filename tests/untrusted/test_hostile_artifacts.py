"""Artifacts that were made to do harm: links, pipes, and manifests that ask for what no machine has."""

import json
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from chaos import mutate
from kind_jax import model, sealed
from kind_jax.config import FactorConfig
from kind_jax.deploy.artifact import read_manifest
from kind_jax.deploy.bundle import Bundle, export, open_bundle
from kind_jax.errors import UserError

CONFIG = tiny.change(tiny.CONFIG, model={"num_classes": 3, "groups": (0, 0, 1)}, data={"path": "/somewhere"})


def bundle(config=CONFIG, names=("zero", "one", "two")) -> Bundle:
    return Bundle(
        config=config, collections=jax.tree.map(np.asarray, model.init(config.model, 0)), groups=(0, 1),
        class_names=names, weights="ema", step=7, origin=Path("nowhere"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hostile") / "art"
    export(bundle(), directory)
    return directory


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "art"))


def edit(directory: Path, change) -> None:
    manifest = json.loads(sealed.read(directory / "kind.json"))
    change(manifest)
    (directory / "kind.json").write_bytes(mutate.forge(mutate.dumps(manifest).encode()))


def linked(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def holes(directory: Path) -> None:
    """A file of a terabyte that takes no space, as the manifest says."""
    os.truncate(directory / "params.safetensors", 1 << 40)
    edit(directory, lambda m: m["files"]["params.safetensors"].update(bytes=1 << 40))


def field(name, value):
    return lambda d: edit(d, lambda m: m["config"]["model"].update({name: value}))


def factor(name, value):
    return lambda d: edit(d, lambda m: m["config"]["model"]["factor"].update({name: value}))


HOSTILE = {
    "a link to a file": (lambda d: linked(d / "params.safetensors"), r"params\.safetensors is a symbolic link.*cp -rL"),
    "a link to tailors": (lambda d: linked(d / "tailors" / "0.safetensors"), r"0\.safetensors is a symbolic link"),
    "a link to the tailors' folder": (lambda d: linked(d / "tailors"), "tailors is a symbolic link.*cp -rL"),
    "a link to the manifest": (lambda d: linked(d / "kind.json"), r"kind\.json is a symbolic link.*cp -rL"),
    "a dangling link": (lambda d: (d / "extra").symlink_to("nothing"), "extra is a symbolic link"),
    "a pipe": (lambda d: piped(d / "params.safetensors"), r"params\.safetensors is not a file"),
    "a pipe of tailors": (lambda d: piped(d / "tailors" / "1.safetensors"), r"1\.safetensors is not a file"),
    "an endless file": (lambda d: endless(d / "learngenes.safetensors"), "is a symbolic link"),
    "a folder": (lambda d: folder(d / "learngenes.safetensors"), r"learngenes\.safetensors is not a file"),
    "a surplus folder": (lambda d: (d / "more").mkdir(), "holds 'more', which its kind.json does not list"),
    "a surplus pipe": (lambda d: os.mkfifo(d / "more"), "holds 'more', which its kind.json does not list"),
    "a folder among the tailors": (lambda d: (d / "tailors/x").mkdir(), "holds 'tailors/x', which"),
    "a name that commands": (lambda d: (d / "\x1b[2J").touch(), r"holds '\\x1b\[2J', which"),
    "no folder of tailors": (
        lambda d: [(d / "tailors").rename(d.parent / "t"), (d / "tailors").touch()],
        "tailors cannot be read: Not a directory",
    ),
    "holes": (holes, r"'params\.safetensors' has 1099511627776 bytes for \d+ numbers"),
    "a manifest of a terabyte": (lambda d: os.truncate(d / "kind.json", 1 << 40), "must have at most"),
    "a key twice": (
        lambda d: edit(d, lambda m: m.update(step=mutate.Raw('1,"step":2'))), "the key 'step' twice in one object"
    ),
    "a key twice far down": (
        lambda d: edit(d, lambda m: m["config"]["model"].update(depth=mutate.Raw('1,"depth":2'))), "'depth' twice"
    ),
    "classes without end": (field("num_classes", 10**12), "model.num_classes is 1000000000000, but it must be"),
    "a million classes": (
        lambda d: [field("num_classes", 10**6)(d), field("groups", None)(d)], "names 3 classes, but its config has"
    ),
    "groups without end": (field("groups", [0, 10**12, 1]), "numbered 0, 1, 2, ... without gaps"),
    "depth": (field("depth", 1000), "needs at least 876000 numbers in it, not 1752"),
    "width": (field("width", 65_536), "against its own config, which needs at least"),
    "unbelievable width": (field("width", 10**12), "model.width is 1000000000000"),
    "mlp_ratio": (field("mlp_ratio", 1e300), "model.mlp_ratio is 1e[+]300"),
    "channels": (field("channels", 4096), "lists other arrays of 'params.safetensors'"),
    "patch": (lambda d: [field("size", 1024)(d), field("patch", 1024)(d)], "lists other arrays of 'params"),
    "learngenes": (factor("learngenes", 2**20), "'learngenes.safetensors', against its own config"),
    "tailors": (factor("tailors", 2**20), "'tailors/0.safetensors', against its own config"),
    "no groups": (lambda d: edit(d, lambda m: m.update(groups=[])), "lists no groups"),
    "a negative step": (lambda d: edit(d, lambda m: m.update(step=-1)), "step: Input should be greater"),
    "no sha256": (lambda d: edit(d, lambda m: m["files"]["params.safetensors"].update(sha256="")), "the sha256 of"),
    "an absolute path": (
        lambda d: edit(d, lambda m: m["files"].update({"/etc/passwd": m["files"]["params.safetensors"]})),
        "lists '/etc/passwd', against its own config",
    ),
    "a class with commands": (
        lambda d: edit(d, lambda m: m.update(class_names=["a", "b", "\x1b]0;x\x07\n"])), r"class name '.*x1b.*printable"
    ),
    "a class without name": (lambda d: edit(d, lambda m: m.update(class_names=["a", "", "c"])), "the class name ''"),
    "a class with a long name": (
        lambda d: edit(d, lambda m: m.update(class_names=["a", "b", "c" * 10**6])), "must be 1 to 200 printable"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_artifacts_are_refused_for_nothing(copy, kind):
    harm, message = HOSTILE[kind]
    harm(copy)
    before, start = sorted(copy.parent.rglob("*")), time.monotonic()
    tracemalloc.start()
    with pytest.raises(UserError, match=message) as error:
        open_bundle(copy)
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()
    assert time.monotonic() - start < 5
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000
    assert sorted(copy.parent.rglob("*")) == before


def test_composed_of_classes_that_are_not_there(copy):
    composition = {
        "classes": [10**9], "folded": True, "max_params": None, "max_flops": None, "rank": None, "form": "auto",
        "criterion": "svd", "source": "x", "energy": 1.0, "weights": [],
    }  # fmt: skip
    for changes, message in (
        ({}, "composed for class 1000000000, but its config has 3 classes"),
        ({"classes": [-1]}, "composed for class -1"),
        ({"classes": [0]}, r"lists the groups \[0, 1\], but was composed of \[0\]"),
        ({"classes": [0, 2], "source": "\x1b[2J"}, "its composition has the name"),
    ):
        edit(copy, lambda m, changes=changes: m.update(composition=composition | changes))
        with pytest.raises(UserError, match=message):
            read_manifest(copy)


def test_ranks_that_ask_for_too_much(copy):
    names = ("qkv", "o", "mlp_in", "mlp_out", "adaln")
    factor("ranks", [[f"{i}/{name}", 2**20, 2**20] for i in range(2) for name in names])(copy)
    tracemalloc.start()
    with pytest.raises(UserError, match="against its own config, which needs at least"):
        open_bundle(copy)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_a_folder_of_somebody_elses_machine_is_forgotten(whole, copy):
    """Otherwise the data sets of an evaluation would be written wherever a stranger's artifact says."""
    assert json.loads((whole / "kind.json").read_text())["config"]["data"]["path"] is None
    edit(copy, lambda m: m["config"]["data"].update(path="/home/you/.ssh"))
    assert open_bundle(copy).config.data.path is None


def test_names_that_would_be_refused_are_not_written(tmp_path):
    with pytest.raises(UserError, match="The model has the class name"):
        export(bundle(names=("a", "b\n", "c")), tmp_path / "art")
    assert list(tmp_path.iterdir()) == []


def test_a_dense_model_of_an_older_version_is_exported_again(tmp_path):
    dense = tiny.change(CONFIG, model={"factor": FactorConfig(projections=())})
    export(bundle(dense), tmp_path / "art")
    old = json.loads(sealed.read(tmp_path / "art" / "kind.json")) | {"format": 1, "groups": []}
    (tmp_path / "art" / "kind.json").write_text(json.dumps(old, indent=1))
    with pytest.raises(UserError, match=r"older version of kind-jax .*must be exported again"):
        open_bundle(tmp_path / "art")
