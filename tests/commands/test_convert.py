"""Models of other programs from the command line, and back."""

import json
import pickle
import sys
from pathlib import Path

import chex
import jax
import jax.export
import numpy as np
import official_dit
import pytest
import safetensors.numpy
from PIL import Image

from kind_jax.cli import main
from kind_jax.deploy.bundle import open_bundle

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDER = FIXTURES / "diffusers_reference"
GOOD = [str(FOLDER), "--from", "diffusers"]
SOME = [*GOOD, "--learngenes", "4", "--tailors", "2"]


def write(path, **changes):
    """The recorded state dict as a file, with arrays replaced, or left out where the value is None."""
    arrays = {k: np.ascontiguousarray(a) for k, a in (official_dit.recorded() | changes).items() if a is not None}
    safetensors.numpy.save_file(arrays, path)
    return str(path)


def test_convert_sample_export_and_back(tmp_path, capsys):
    source, art = write(tmp_path / "dit.safetensors"), str(tmp_path / "art")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\neel\nfox\n")
    names = ["--class-names", str(tmp_path / "names.txt")]
    assert main(["convert", source, "--from", "dit", "--heads", "4", "--out", art, *names]) == 0
    out = capsys.readouterr().out
    assert "3 blocks, width 32, 4 heads, 6 classes" in out
    total = sum(a.size for name, a in official_dit.recorded().items() if name != "pos_embed")
    assert f"{total:,}" in out
    chex.assert_trees_all_equal(open_bundle(art).collections, official_dit.collections())
    assert main(["sample", art, "--classes", "1,5", "--rows", "1", "--steps", "3", "--out", f"{art}.png"]) == 0
    assert "columns: bee, fox" in capsys.readouterr().out
    assert np.asarray(Image.open(f"{art}.png")).std() > 0
    # To diffusers and back, to the official names and back.
    folder, copy, state = (str(tmp_path / name) for name in ("folder", "copy", "state.safetensors"))
    assert main(["export", art, "--to", "diffusers", "--out", folder]) == 0
    assert "warning: the model has the official time frequencies" in capsys.readouterr().out
    assert main(["convert", folder, "--from", "diffusers", "--out", copy]) == 0
    assert main(["export", copy, "--to", "dit", "--out", state]) == 0
    assert "warning" not in capsys.readouterr().out
    assert main(["convert", state, "--from", "dit", "--out", copy]) == 2
    assert "exists already, but --out must be" in capsys.readouterr().err
    assert main(["convert", state, "--from", "dit", "--out", copy, "--replace"]) == 0
    first, last = open_bundle(art), open_bundle(copy)
    chex.assert_trees_all_equal(first.collections, last.collections)
    assert (first.config.model, first.class_names) == (last.config.model, last.class_names)


def test_decompose(tmp_path, capsys):
    art = tmp_path / "art"
    args = ["convert", str(FOLDER), "--from", "diffusers", "--out", str(art), "--learngenes", "6", "--tailors", "2"]
    args += ["--projections", "qkv", "mlp_out", "--residual", "shared", "--groups", "0,0,1,1,1"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "1/mlp_out" in out
    assert "error" in out
    found = open_bundle(art)
    settings = found.config.model
    assert (settings.learngenes, settings.tailors, settings.group_of_class) == (6, 2, (0, 0, 1, 1, 1))
    assert (settings.factor.projections, settings.time_frequencies) == (("qkv", "mlp_out"), "diffusers")
    layers = json.loads((tmp_path / "art_decomposition.json").read_text())["layers"]
    assert [layer["name"] for layer in layers] == ["0/qkv", "0/mlp_out", "1/qkv", "1/mlp_out"]
    assert np.asarray(Image.open(tmp_path / "art_decomposition.png")).std() > 0
    # The best approximation of rank 8 is what a group of classes has.
    dense = safetensors.numpy.load_file(FOLDER / "diffusion_pytorch_model.safetensors")
    kernel = dense["transformer_blocks.1.ff.net.2.weight"].T
    values = np.linalg.svd(kernel, compute_uv=False)
    wanted = np.sqrt(np.sum(values[8:] ** 2) / np.sum(values**2))
    assert layers[3]["error"] == pytest.approx(wanted, rel=1e-3)
    # What has tailors is no DiT of other programs until one group is folded in.
    assert main(["export", str(art), "--to", "diffusers", "--out", str(tmp_path / "no")]) == 2
    assert "kind-jax compose --form dense" in capsys.readouterr().err
    one = ["--classes", "1", "--form", "dense", "--out", str(tmp_path / "one")]
    assert main(["compose", str(art), *one]) == 0
    assert main(["export", str(tmp_path / "one"), "--to", "diffusers", "--out", str(tmp_path / "yes")]) == 0
    assert (tmp_path / "yes/config.json").is_file()
    assert not (tmp_path / "no").exists()


def test_stablehlo(tmp_path, capsys):
    art, out = tmp_path / "art", tmp_path / "program"
    assert main(["convert", *GOOD, "--out", str(art)]) == 0
    assert main(["export", str(art), "--to", "stablehlo", "--out", str(out)]) == 0
    assert f"program    {out / 'denoiser.stablehlo'}" in capsys.readouterr().out
    with np.load(FIXTURES / "diffusers_reference.npz") as file:
        recorded = dict(file)
    weights = safetensors.numpy.load_file(out / "weights.safetensors")
    program = jax.export.deserialize(bytearray((out / "denoiser.stablehlo").read_bytes()))
    x, t, y = (recorded[name].astype(dtype) for name, dtype in (("x", "f4"), ("t", "f4"), ("y", "i4")))
    found = np.asarray(program.call(weights, x, t, y))
    np.testing.assert_allclose(found, recorded["out"], atol=1e-5 * np.max(np.abs(recorded["out"])))
    assert main(["export", str(art), "--to", "stablehlo", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["export", str(art), "--to", "stablehlo", "--out", str(out), "--replace"]) == 0


def test_full_learngenes_are_the_dense_model(tmp_path, capsys):
    args = ["convert", str(FOLDER), "--from", "diffusers", "--out", str(tmp_path / "art")]
    assert main([*args, "--learngenes", "full", "--tailors", "1", "--residual", "zero"]) == 0
    layers = json.loads((tmp_path / "art_decomposition.json").read_text())["layers"]
    assert max(layer["error"] for layer in layers) < 1e-5
    capsys.readouterr()


def nan(shape):
    return np.full(shape, np.nan, np.float32)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("a.ckpt", {}, "ends in '.ckpt', but a state dict must be a .safetensors file, or a .pt file"),
        ("a.safetensors", {"x_embedder.proj.bias": None}, "lacks the array 'x_embedder.proj.bias'"),
        ("a.safetensors", {"more": nan(1)}, "holds the array 'more', which this model does not have"),
        ("a.safetensors", {"x_embedder.proj.bias": nan(31)}, "has shape (31,), but this model needs (32,)"),
        ("a.safetensors", {"x_embedder.proj.bias": nan(32)}, "'x_embedder.proj.bias' has numbers that are not finite"),
    ],
)  # fmt: skip
def test_bad_state_dicts(tmp_path, capsys, name, changes, message):
    source = write(tmp_path / name, **changes)
    assert main(["convert", source, "--from", "dit", "--heads", "4", "--out", str(tmp_path / "art")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere.safetensors", "--from", "dit"], "nowhere.safetensors is missing"),
        ([str(FOLDER), "--from", "dit"], "is a folder, but a state dict is one file"),
        (["nowhere", "--from", "diffusers"], "'nowhere' is no folder"),
        ([*GOOD, "--heads", "2"], "--heads is 2, but it belongs to --from dit"),
        ([*GOOD, "--tailors", "2"], "--tailors is '2', but it belongs to --learngenes"),
        ([*GOOD, "--learngenes", "2"], "--tailors is not, the number of components"),
        ([*GOOD, "--learngenes", "x", "--tailors", "2"], "--learngenes is 'x', but it"),
        ([*GOOD, "--learngenes", "99", "--tailors", "2"], "learngenes is 99, but it must"),
        ([*SOME, "--groups", "0,1"], "model.groups"),
        ([*SOME, "--groups", "g.txt"], "--groups is 'g.txt', but it must be numbers"),
        ([*SOME, "--plot", "x.pdf"], "end in .png"),
        ([*GOOD, "--class-names", "n.txt"], "n.txt is missing"),
        ([*GOOD, "--class-names", str(FOLDER / "config.json")], "class names are given"),
    ],
)  # fmt: skip
def test_mistakes(args, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *args, "--out", "new"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_export_refuses_before_it_reads(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/kind.json").touch()
    for form, out, message in (
        ("dit", "x.pt", "must end in .safetensors"),
        ("diffusers", "full", "exists already"),
        ("dit", "full/x.safetensors", "lies inside the artifact"),
    ):
        assert main(["export", "nowhere", "--to", form, "--out", str(tmp_path / out)]) == 2
        assert message in capsys.readouterr().err


def test_without_pytorch_the_extra_is_named(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({}))
    monkeypatch.setitem(sys.modules, "torch", None)  # import torch raises ImportError
    assert main(["convert", str(tmp_path / "a.pt"), "--from", "dit", "--out", str(tmp_path / "art")]) == 2
    err = capsys.readouterr().err
    assert "pip install 'kind-jax[torch]'" in err
    assert err.count("\n") == 1
    assert main(["convert", str(tmp_path / "b.pt"), "--from", "dit", "--out", str(tmp_path / "art")]) == 2
    assert "b.pt is missing" in capsys.readouterr().err


def test_a_pickle_with_code_is_not_run(tmp_path, capsys):
    pytest.importorskip("torch")
    (tmp_path / "a.pt").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    assert main(["convert", str(tmp_path / "a.pt"), "--from", "dit", "--out", str(tmp_path / "art")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_nothing_is_left_when_writing_fails(tmp_path, capsys, monkeypatch):
    def fail(*args, **settings):
        raise OSError(28, "No space left on device", str(tmp_path / "art"))

    art = tmp_path / "first"
    assert main(["convert", str(FOLDER), "--from", "diffusers", "--out", str(art)]) == 0
    monkeypatch.setattr(safetensors.numpy, "save", fail)
    assert main(["convert", str(FOLDER), "--from", "diffusers", "--out", str(tmp_path / "art")]) == 2
    for form, out in (("diffusers", "folder"), ("dit", "x.safetensors")):
        assert main(["export", str(art), "--to", form, "--out", str(tmp_path / out)]) == 2
    assert capsys.readouterr().err.count("No space left") == 3
    assert [p.name for p in tmp_path.iterdir()] == ["first"]
