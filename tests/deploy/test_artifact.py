"""Artifacts: what they hold, that they are read in parts, and that nothing damaged is ever loaded."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny

from kind_jax import model, partition, sealed
from kind_jax.config import FactorConfig
from kind_jax.deploy import anatomy
from kind_jax.deploy.bundle import Bundle, export, open_bundle
from kind_jax.errors import UserError
from kind_jax.nn.gate import one_group

CONFIG = tiny.change(tiny.CONFIG, model={"num_classes": 5, "groups": (0, 0, 1, 1, 2)})


def bundle_of(config, seed=0) -> Bundle:
    return Bundle(
        config=config,
        collections=jax.tree.map(lambda a: np.asarray(a) + np.float32(0.01), model.init(config.model, seed)),
        groups=tuple(range(config.model.num_groups)),
        class_names=tuple(f"name {c}" for c in range(config.model.num_classes)),
        weights="ema",
        step=7,
        origin=Path("nowhere"),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("artifact") / "art"
    export(bundle_of(CONFIG), directory)
    return directory


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "art"))


def test_export_then_open_is_the_identity(whole):
    found, wanted = open_bundle(whole), bundle_of(CONFIG)
    chex.assert_trees_all_equal(found.collections, wanted.collections)
    for field in ("config", "groups", "class_names", "weights", "step"):
        assert getattr(found, field) == getattr(wanted, field)


def test_files_and_their_hashes(whole):
    files = {p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file()}
    tailors = {f"tailors/{g}.safetensors" for g in range(3)}
    assert files == {"README.md", "kind.json", "learngenes.safetensors", "params.safetensors"} | tailors
    listed = json.loads((whole / "kind.json").read_text())["files"]
    for name in files - {"README.md", "kind.json"}:
        assert listed[name]["sha256"] == hashlib.sha256((whole / name).read_bytes()).hexdigest()
    one = partition.unflatten(safetensors.numpy.load_file(whole / "tailors/1.safetensors"))
    chex.assert_trees_all_equal(one, jax.tree.map(lambda a: a[1], bundle_of(CONFIG).collections["tailors"]))


def test_only_the_tailors_asked_for_are_read(copy):
    (copy / "tailors/0.safetensors").unlink()
    (copy / "tailors/2.safetensors").unlink()
    part = open_bundle(copy, classes=(3, 2))
    assert part.groups == (1,)
    labels = np.array([2, 3, 2], np.int32)
    chex.assert_trees_all_close(part.sample(labels, seed=0), bundle_of(CONFIG).sample(labels, seed=0), atol=1e-5)
    with pytest.raises(UserError, match=r"class is 4, but its tailors are not loaded; the loaded ones serve \[2, 3\]"):
        part.sample(np.array([4], np.int32), seed=0)
    with pytest.raises(UserError, match=r"tailors/0.safetensors is missing"):
        open_bundle(copy)


def test_a_part_of_an_artifact_is_an_artifact(copy, tmp_path):
    export(open_bundle(copy, classes=(4,)), tmp_path / "part")
    part = open_bundle(tmp_path / "part")
    assert part.groups == (2,)
    chex.assert_trees_all_equal(
        part.collections["tailors"], partition.select(bundle_of(CONFIG).collections["tailors"], [2])
    )
    with pytest.raises(UserError, match="has no tailors of class 0 name 0; it serves 4 name 4"):
        open_bundle(tmp_path / "part", classes=(0,))


def test_a_dense_model_has_no_tailor_files(tmp_path):
    dense = tiny.change(CONFIG, model={"factor": FactorConfig(projections=())})
    export(bundle_of(dense), tmp_path / "dense")
    assert {p.name for p in (tmp_path / "dense").iterdir()} == {"README.md", "kind.json", "params.safetensors"}
    chex.assert_trees_all_equal(open_bundle(tmp_path / "dense").collections, bundle_of(dense).collections)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def rewrite(directory: Path, change) -> None:
    """Change a tensor file and make the manifest agree with its new bytes, as a forger would."""
    name = "params.safetensors"
    tensors = safetensors.numpy.load_file(directory / name)
    change(tensors)
    data = safetensors.numpy.save(tensors)
    (directory / name).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    edit(directory, lambda m: m["files"][name].update(entry))


def edit(directory: Path, change) -> None:
    """Change the manifest and seal it again."""
    manifest = json.loads((directory / "kind.json").read_text())
    del manifest["sha256"]
    change(manifest)
    sealed.write(directory / "kind.json", manifest)


DAMAGE = {
    "missing": (lambda d: (d / "learngenes.safetensors").unlink(), "learngenes.safetensors is missing"),
    "extra": (lambda d: (d / "extra.bin").write_text("x"), "holds 'extra.bin', which its kind.json does not list"),
    "extra tailors": (
        lambda d: shutil.copy(d / "tailors/0.safetensors", d / "tailors/9.safetensors"),
        "holds 'tailors/9.safetensors'",
    ),
    "flipped bit": (lambda d: flip(d / "tailors/1.safetensors"), "tailors/1.safetensors has SHA-256 .*damaged"),
    "truncated": (lambda d: os.truncate(d / "params.safetensors", 100), "params.safetensors has 100 bytes, but"),
    "wrong shape": (
        lambda d: rewrite(d, lambda t: t.update({"final/linear/bias": np.zeros(3, np.float32)})),
        r"'final/linear/bias' has shape \(3,\), but this model needs \(16,\)",
    ),
    "wrong dtype": (
        lambda d: rewrite(d, lambda t: t.update({"final/linear/bias": np.zeros(16, np.float16)})),
        "'final/linear/bias' has dtype float16, but this model needs float32",
    ),
    "missing array": (
        lambda d: rewrite(d, lambda t: t.pop("final/linear/bias")),
        "lacks the array 'final/linear/bias'",
    ),
    "extra array": (
        lambda d: rewrite(d, lambda t: t.update({"final/linear/wings": np.zeros(3, np.float32)})),
        "holds the array 'final/linear/wings'",
    ),
    "not JSON": (lambda d: (d / "kind.json").write_text("{"), "kind.json is damaged or was changed by hand"),
    "a flipped bit in the manifest": (lambda d: flip(d / "kind.json"), "kind.json is damaged or was changed by hand"),
    "an older format": (
        lambda d: (d / "kind.json").write_text('{\n "format": 1,\n "kind_jax": "0.1"}'),
        "kind.json was written by an older version .* must be exported again",
    ),
    "unknown field": (lambda d: edit(d, lambda m: m.update(colour="red")), "kind.json is damaged.*colour"),
    "future format": (
        lambda d: edit(d, lambda m: m.update(format=3)),
        "kind.json is .*of another version: format is 3",
    ),
    "foreign group": (lambda d: edit(d, lambda m: m["groups"].append(3)), "lists group 3, but its config has 3 groups"),
    "path traversal": (
        lambda d: edit(d, lambda m: m["files"].update({"../secret": m["files"]["params.safetensors"]})),
        r"lists '\.\./secret', against its own config",
    ),
    "other depth": (
        lambda d: edit(d, lambda m: m["config"]["model"].update(depth=3)),
        r"lists 'learngenes.safetensors', against its own config, which needs at least 2628 numbers in it, not 1752",
    ),
    "too few names": (lambda d: edit(d, lambda m: m["class_names"].pop()), "names 4 classes, but its config has 5"),
    "a group twice": (lambda d: edit(d, lambda m: m["groups"].append(1)), "lists a group twice"),
    "other arrays listed": (
        lambda d: edit(d, lambda m: m["files"]["params.safetensors"]["arrays"].popitem()),
        r"lists other arrays of 'params.safetensors' than its own config needs: 'time_embed/out/kernel' is absent",
    ),
    "impossible config": (
        lambda d: edit(d, lambda m: m["config"]["model"].update(heads=5)),
        "kind.json is damaged.*model.heads is 5",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_in_one_sentence(copy, kind):
    damage, message = DAMAGE[kind]
    damage(copy)
    with pytest.raises(UserError, match=message):
        open_bundle(copy)


def test_existing_folders_are_not_overwritten(whole, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("precious")
    for replace in (False, True):
        with pytest.raises(UserError):
            export(bundle_of(CONFIG), tmp_path / "mine", replace=replace)
    assert (tmp_path / "mine" / "notes").read_text() == "precious"
    target = Path(shutil.copytree(whole, tmp_path / "old"))
    (target / "notes").write_text("precious")
    with pytest.raises(UserError, match="holds 'notes'"):
        export(bundle_of(CONFIG, seed=1), target, replace=True)
    (target / "notes").unlink()
    export(dataclasses.replace(bundle_of(CONFIG, seed=1), step=8), target, replace=True)
    assert open_bundle(target).step == 8


def test_what_is_not_aboard_is_refused(whole):
    part = open_bundle(whole, classes=(2,))
    with pytest.raises(UserError, match="rows beyond the 1 groups that are aboard"):
        part.sample(np.array([2], np.int32), seed=0, gate=one_group(jnp.array([1])))
    with pytest.raises(UserError, match="holds the ema weights, but the raw weights were asked for"):
        open_bundle(whole, weights="raw")


def test_neither_run_nor_artifact(tmp_path):
    with pytest.raises(UserError, match=r"neither a run .* nor an artifact"):
        open_bundle(tmp_path)


def test_anatomy_counts_and_energies():
    bundle = bundle_of(CONFIG)
    sizes = {s.name: s for s in anatomy.sizes(bundle.collections, 3)}
    leaves = jax.tree.leaves(bundle.collections)
    assert sizes["whole model"].parameters == sum(a.size for a in leaves)
    assert sizes["whole model"].bytes == 4 * sizes["whole model"].parameters
    one, rest = sizes["tailors of one group"].parameters, sizes["learngenes"].parameters + sizes["params"].parameters
    assert sizes["tailors of all 3 groups"].parameters == 3 * one
    assert sizes["model that serves one group"].parameters == rest + one
    layers = {layer.name: layer for layer in anatomy.layers(bundle.collections)}
    assert set(layers) == {f"blocks.{i}.{p}" for i in range(2) for p in ("qkv", "mlp_out")}
    shared = jax.tree.map(lambda a: np.asarray(a[1], np.float64), bundle.collections["learngenes"]["blocks"]["mlp_out"])
    parts = [
        np.linalg.norm(s * np.outer(u, v)) ** 2 for u, s, v in zip(shared["u"].T, shared["s"], shared["v"], strict=True)
    ]
    layer = layers["blocks.1.mlp_out"]
    np.testing.assert_allclose(layer.energy_learngenes, sum(parts), rtol=1e-6)
    assert (layer.shape, layer.learngenes, layer.tailors) == ((64, 16), 6, 2)
