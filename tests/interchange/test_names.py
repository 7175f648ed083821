"""Folders of diffusers: what is read, what is refused, and that they are written back as they were."""

import dataclasses
import json
import shutil
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import official_dit
import pytest
import safetensors.numpy

from kind_jax import model
from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError
from kind_jax.interchange import official
from kind_jax.interchange.dense import difference
from kind_jax.interchange.incoming import load_diffusers
from kind_jax.interchange.outgoing import save_diffusers
from kind_jax.nn.embed import time_features
from kind_jax.nn.gate import learngenes_only

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDER = FIXTURES / "diffusers_reference"
WEIGHTS = "diffusion_pytorch_model.safetensors"
RECORDED = np.load(FIXTURES / "diffusers_reference.npz")


def off(bundle):
    """How far the outputs are from what diffusers computed."""
    weights = jax.tree.map(jnp.asarray, bundle.collections)
    x, t, y = (jnp.asarray(RECORDED[name], dtype) for name, dtype in (("x", "f4"), ("t", "f4"), ("y", "i4")))
    out = jax.jit(model.apply, static_argnums=0)(bundle.config.model, weights, x, t, y, learngenes_only())
    return np.max(np.abs(out - RECORDED["out"])) / np.max(np.abs(RECORDED["out"]))


def official_bundle():
    """A model with the official frequencies."""
    return Bundle(
        config=dataclasses.replace(load_diffusers(FOLDER).config, model=official_dit.CONFIG),
        collections=official.to_collections(official_dit.CONFIG, official_dit.recorded()),
        groups=tuple(range(6)), class_names=tuple("uvwxyz"), weights="ema", step=0, origin=Path("official"),
    )  # fmt: skip


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(FOLDER, tmp_path / "copy"))


def change(folder, **settings):
    """Change settings of config.json; None removes one."""
    found = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps({k: v for k, v in found.items() if v is not None}))


def rewrite(folder, **changes):
    arrays = safetensors.numpy.load_file(folder / WEIGHTS) | changes
    safetensors.numpy.save_file({k: a for k, a in arrays.items() if a is not None}, folder / WEIGHTS)


def shard(folder, **changes):
    """Split the weights in two files and an index."""
    arrays = safetensors.numpy.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    places = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(arrays)}
    for file in set(places.values()):
        safetensors.numpy.save_file({n: a for n, a in arrays.items() if places[n] == file}, folder / file)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places | changes}))


def test_a_folder_computes_what_diffusers_does():
    bundle = load_diffusers(FOLDER)
    assert (bundle.config.model.time_frequencies, bundle.config.model.mlp_norm_eps) == ("diffusers", 1e-5)
    assert (bundle.config.model.learn_sigma, bundle.class_names) == (False, tuple("01234"))
    assert off(bundle) < 1e-5
    for settings in ({"time_frequencies": "dit"}, {"mlp_norm_eps": 1e-3}):  # both matter
        assert difference(bundle, **settings) > 1e-4


def test_weights_that_were_only_renamed():
    bundle = load_diffusers(FOLDER, time_frequencies="dit")
    assert (bundle.config.model.time_frequencies, bundle.config.model.mlp_norm_eps) == ("dit", 1e-6)
    assert off(bundle) > 1e-3


def test_the_frequencies_are_those_of_either_code():
    t = jnp.array([1.0])
    last = {kind: float(jnp.arccos(time_features(t, kind)[0, 64])) for kind in ("dit", "diffusers")}
    assert last["dit"] == pytest.approx(1e4 ** (-64 / 128), rel=1e-3)
    assert last["diffusers"] == pytest.approx(1e4 ** (-64 / 127), rel=1e-3)


def test_round_trip_is_the_identity(tmp_path):
    bundle = load_diffusers(FOLDER)
    assert save_diffusers(bundle, tmp_path / "out") == 0
    written = safetensors.numpy.load_file(tmp_path / "out" / WEIGHTS)
    chex.assert_trees_all_equal(written, safetensors.numpy.load_file(FOLDER / WEIGHTS))
    assert "downscale_freq_shift" not in (tmp_path / "out/README.md").read_text()
    theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (FOLDER, tmp_path / "out"))
    assert ours == theirs | {"out_channels": 3}


def test_official_frequencies_survive(tmp_path):
    bundle = official_bundle()
    off_by = save_diffusers(bundle, tmp_path / "out")
    assert 1e-4 < off_by < 1
    assert off_by == pytest.approx(difference(bundle, time_frequencies="diffusers"))
    text = (tmp_path / "out/README.md").read_text()
    assert "b.norm1.emb.time_proj.downscale_freq_shift = 0" in text
    assert f"{off_by:.1e}" in text
    again = load_diffusers(tmp_path / "out")
    chex.assert_trees_all_equal(again.collections, bundle.collections)
    assert (again.config, again.class_names) == (bundle.config, bundle.class_names)
    with pytest.raises(UserError, match="exists already"):
        save_diffusers(bundle, tmp_path / "out")
    save_diffusers(bundle, tmp_path / "out", replace=True)
    (tmp_path / "out/mine.txt").write_text("not from us")
    with pytest.raises(UserError, match="is not a folder that was exported"):
        save_diffusers(bundle, tmp_path / "out", replace=True)
    assert (tmp_path / "out/mine.txt").exists()


def test_shards_pipelines_and_kept_positions(copy, tmp_path):
    whole = load_diffusers(FOLDER).collections
    settings = load_diffusers(FOLDER).config.model
    positions = official.empty_state_dict(settings)["pos_embed"]
    rewrite(copy, **{"pos_embed.pos_embed": positions})
    shard(copy)
    chex.assert_trees_all_equal(load_diffusers(copy).collections, whole)
    copy.rename(tmp_path / "transformer")
    names = {"id2label": {str(i): name for i, name in enumerate(("tench, Tinca tinca", "b", "c", "d", "e"))}}
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DiTPipeline", **names}))
    found = load_diffusers(tmp_path)
    chex.assert_trees_all_equal(found.collections, whole)
    assert found.class_names == ("tench, Tinca tinca", "b", "c", "d", "e")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_class_name": "PixArtTransformer2DModel"}, "is of the class PixArtTransformer2DModel, but it must be"),
        ({"activation_fn": "geglu"}, "activation_fn is 'geglu', but it must be 'gelu-approximate'"),
        ({"attention_bias": False}, "attention_bias is False, but it must be True"),
        ({"attention_bias": 1}, "attention_bias is 1, but it must be True"),
        ({"norm_type": "layer_norm"}, "norm_type is 'layer_norm', but"),
        ({"norm_elementwise_affine": True}, "norm_elementwise_affine is True, but it must be False"),
        ({"dropout": 0.1}, r"dropout is 0\.1, but"),
        ({"norm_type": None}, "norm_type is absent, but"),
        ({"num_layers": None}, "num_layers is absent, but it must be a positive whole number"),
        ({"num_layers": "2"}, "num_layers is '2', but"),
        ({"cross_attention_dim": 768}, "cross_attention_dim is 768, which a DiT has no setting for"),
        ({"out_channels": 4}, "out_channels is 4, but it must be 3 or, with a variance, 6"),
        ({"norm_eps": "x"}, "norm_eps is 'x', but it must be a number"),
        ({"num_layers": 3}, r"lacks the array 'transformer_blocks.2"),
        ({"num_layers": 1}, "'transformer_blocks.1.attn1.to_k.bias', which this model does not have"),
        ({"attention_head_dim": 12}, r"has shape .*, but this model needs"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_followed(copy, settings, message):
    change(copy, **settings)
    with pytest.raises(UserError, match=message):
        load_diffusers(copy)


def test_settings_of_the_first_versions_are_followed(copy):
    off = {"cross_attention_dim": None, "only_cross_attention": False, "attention_type": "default"}
    found = json.loads((copy / "config.json").read_text())
    del found["norm_eps"]
    (copy / "config.json").write_text(json.dumps(found | off | {"_class_name": "Transformer2DModel"}))
    assert load_diffusers(copy).config.model == load_diffusers(FOLDER).config.model


EMB = "transformer_blocks.1.norm1.emb"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: rewrite(f, **{f"{EMB}.timestep_embedder.linear_1.bias": np.zeros(16, np.float32)}),
         r"'transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias' differs from 'transformer_blocks.0"),
        (lambda f: rewrite(f, **{"proj_out_1.bias": None}), r"lacks the array 'proj_out_1.bias' of shape \(32,\)"),
        (lambda f: rewrite(f, **{"proj_out_3.bias": np.zeros(2, np.float32)}), r"holds the array 'proj_out_3.bias'"),
        (lambda f: rewrite(f, **{"pos_embed.pos_embed": np.zeros((1, 16, 16), np.float32)}), "away from DiT's"),
        (lambda f: shard(f, x="../part-0.safetensors"), "names '../part-0.safetensors', but it must name"),
        (lambda f: shard(f, x="part-0.safetensors"), r"part-0.safetensors lacks 'x', against"),
        (lambda f: shard(f, **{"proj_out_1.bias": "part-9.safetensors"}), "against|is missing"),
        (lambda f: (f / WEIGHTS).rename(f / "diffusion_pytorch_model.bin"), "a pickle, which is not read; save"),
        (lambda f: (f / WEIGHTS).unlink(), "has neither diffusion_pytorch_model"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is damaged: it is not JSON"),
        (lambda f: (f / "kind_jax.json").write_text('{"heads": 2}'), r"kind_jax.json is damaged"),
        (shutil.rmtree, "is no folder, but --from diffusers reads"),
    ],
)  # fmt: skip
def test_damaged_folders(copy, spoil, message):
    spoil(copy)
    with pytest.raises(UserError, match=message):
        load_diffusers(copy)


def test_an_mlp_that_diffusers_cannot_have(tmp_path):
    bundle = official_bundle()
    settings = dataclasses.replace(official_dit.CONFIG, mlp_ratio=2.0)
    bundle = dataclasses.replace(bundle, config=dataclasses.replace(bundle.config, model=settings))
    with pytest.raises(UserError, match=r"mlp_ratio is 2.0, but it must be 4 for diffusers"):
        save_diffusers(bundle, tmp_path / "out")
    assert not list(tmp_path.iterdir())
