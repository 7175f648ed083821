"""Exported programs: the same outputs and samples where there is neither kind_jax nor flax, and what is refused."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from kind_jax import model, partition
from kind_jax.deploy.bundle import Bundle, open_bundle
from kind_jax.deploy.bundle import export as export_artifact
from kind_jax.deploy.compose import compose
from kind_jax.diffusion.guidance import guide
from kind_jax.diffusion.sampler import make_sampler, sample
from kind_jax.errors import UserError
from kind_jax.interchange import stablehlo

GATED = tiny.change(tiny.CONFIG, model={"num_classes": 5, "groups": (0, 0, 1, 1, 2)})
DENSE = tiny.change(
    tiny.CONFIG,
    model={"num_classes": 5, "factor": {"projections": ()}, "learn_sigma": True, "dtype": "bfloat16"},
    diffusion={"process": "gaussian", "prediction": "v", "train_steps": 50},
    sampler={"method": "ddim", "steps": 3},
)
GUIDANCE, STEPS = 1.5, 3

# Everything that an installation of jax, numpy, safetensors and flatbuffers does not have.
RUN = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"kind_jax", "flax", "optax", "orbax", "grain", "jaxtyping", "sklearn", "pydantic"}:
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import numpy as np
folder, given, out = sys.argv[1:]
sys.path.insert(0, folder)
import run
denoise, signature = run.load(folder)
data, found = np.load(given), {}
for n in (1, 5):
    found[f"output{n}"] = denoise(data["images"][:n], data["t"][:n], data["labels"][:n])
start = data["images"][:2]
found["samples"] = run.sample(denoise, signature, data["labels"][:2], steps=3, guidance=1.5, start=start)
try:
    denoise(data["images"][:1], data["t"][:1], np.array([9]))
except ValueError as e:
    found["refused"] = str(e)
np.savez(out, **found)
"""


def bundle_of(config) -> Bundle:
    return Bundle(
        config=config,
        collections=jax.tree.map(np.asarray, tiny.weights(config.model)),
        groups=tuple(range(config.model.num_groups)),
        class_names=tuple(f"name {c}" for c in range(config.model.num_classes)),
        weights="ema",
        step=7,
        origin=Path("nowhere"),
    )


def bundles(name, tmp_path) -> Bundle:
    if name == "dense":
        return bundle_of(DENSE)
    if name == "composed":  # blocks of different forms, and every group on for the null class
        other = tiny.change(GATED, model={"null_gate": "mean"})
        return compose(bundle_of(other), classes=(0, 2, 4), max_params=12_000).bundle
    export_artifact(bundle_of(GATED), tmp_path / "art")
    return open_bundle(tmp_path / "art", classes=(4, 0))  # without the tailors of 2 and 3


@pytest.mark.parametrize(
    "name", ["gated", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dense", "composed"))]
)
def test_the_same_outputs_without_kind_jax(name, tmp_path):
    bundle = bundles(name, tmp_path)
    signature = stablehlo.export(bundle, tmp_path / "out")
    rng = np.random.default_rng(0)
    data = {
        "images": rng.standard_normal((5, 8, 8, 1)).astype(np.float32),
        "t": np.array([0.0, 20.0, 500.0, 960.0, 999.0], np.float32),
        "labels": np.array([4, 0, 5, 1, 4], np.int32),  # 5 is the null class
    }
    np.savez(tmp_path / "given.npz", **data)
    paths = [str(tmp_path / name) for name in ("out", "given.npz", "found.npz")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN, *paths], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "found.npz") as file:
        found = dict(file)

    settings = dataclasses.replace(bundle.config.model, dtype="float32")
    weights = jax.device_put(bundle.collections)

    def denoise(images, t, labels):
        gate = bundle.gates(labels, labels == 5)
        return model.apply(settings, weights, images, t, labels, gate)

    images, t, labels = (jnp.asarray(data[n]) for n in ("images", "t", "labels"))
    wanted = denoise(images, t, labels)
    for n in (1, 5):
        np.testing.assert_allclose(found[f"output{n}"], wanted[:n], atol=1e-5)
    assert str(found["refused"]).startswith("labels [9] are not served")

    def guided(x, t):
        null = jnp.full_like(labels[:2], 5)
        return guide(denoise(x, t, labels[:2]), denoise(x, t, null), GUIDANCE, 1)

    sampler = make_sampler(bundle.config.diffusion, tiny.change(bundle.config.sampler, steps=STEPS), name == "dense")
    samples = sample(sampler, guided, images[:2], jax.random.key(0))
    np.testing.assert_allclose(found["samples"], samples, atol=3e-5)

    assert json.loads((tmp_path / "out" / "signature.json").read_text()) == signature
    assert signature["platforms"] == ["cpu", "cuda", "tpu"]
    served = {"gated": [0, 1, 4], "dense": [0, 1, 2, 3, 4], "composed": [0, 1, 2, 3, 4]}[name]
    assert signature["classes"] == {
        "served": served,
        "names": [f"name {c}" for c in served],
        "null": 5,
        "others": "NaN",
    }
    program = jax.jit(stablehlo._denoiser(bundle))
    odd = jnp.array([c for c in range(-2, 8) if c not in (*served, 5)] + [-100, 99])
    there = jnp.array([*served, 5])
    arrays = jax.tree.map(jnp.asarray, partition.flatten(bundle.collections))
    for labels, nothing in ((odd, True), (there, False)):
        out = program(arrays, jnp.zeros((len(labels), 8, 8, 1)), jnp.zeros(len(labels)), labels)
        assert bool(jnp.all(jnp.isnan(out) == nothing))


def test_where_nothing_is_unconditional_there_is_no_null_class(tmp_path):
    plain = tiny.change(GATED, model={"label_embedding": False})
    one = compose(bundle_of(plain), classes=(4,)).bundle
    assert stablehlo.export(one, tmp_path / "one")["classes"] == {
        "served": [4],
        "names": ["name 4"],
        "null": None,
        "others": "NaN",
    }
    kept = tiny.change(GATED, model={"null_gate": "keep"})
    assert stablehlo.export(bundle_of(kept), tmp_path / "kept")["classes"]["null"] is None


def test_only_what_was_exported_is_replaced(tmp_path, monkeypatch):
    bundle = bundle_of(GATED)
    stablehlo.export(bundle, tmp_path / "out")
    weights, program = tmp_path / "out" / "weights.safetensors", tmp_path / "out" / "denoiser.stablehlo"
    before = weights.read_bytes(), program.read_bytes()
    other = dataclasses.replace(bundle, collections=jax.tree.map(lambda a: a + 1, bundle.collections))
    with pytest.raises(UserError, match=r"out' exists already, but it must be a new folder"):
        stablehlo.export(other, tmp_path / "out")
    assert weights.read_bytes() == before[0]
    stablehlo.export(other, tmp_path / "out", replace=True)
    assert weights.read_bytes() != before[0]
    assert program.read_bytes() == before[1]  # no weight is a constant of the program
    assert b"kind_jax/" not in before[1]  # nor does it name files of this machine
    monkeypatch.setattr(stablehlo, "_program", None)  # nothing is traced before it is refused
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"is not an exported program and nothing else, so it is not replaced"):
        stablehlo.export(other, tmp_path / "out", replace=True)
    export_artifact(bundle, tmp_path / "art")
    with pytest.raises(UserError, match=r"so it is not replaced"):
        stablehlo.export(bundle, tmp_path / "art", replace=True)
    with pytest.raises(UserError, match=r"lies inside the artifact"):
        stablehlo.export(bundle, tmp_path / "art" / "in")
    assert open_bundle(tmp_path / "art").groups == (0, 1, 2)
