"""The official DiT's state dict: read, checked, and written back."""

import dataclasses
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import official_dit
import pytest
import safetensors.numpy
import tiny

from kind_jax import model
from kind_jax.config import FactorConfig, ModelConfig, dit
from kind_jax.deploy.bundle import Bundle
from kind_jax.deploy.compose import compose
from kind_jax.errors import UserError
from kind_jax.interchange import official
from kind_jax.interchange.dense import multiplied_out
from kind_jax.interchange.incoming import load_dit
from kind_jax.interchange.outgoing import save_dit
from kind_jax.nn.gate import learngenes_only
from kind_jax.transferring.plan import plan


def write(path, **changes):
    """The recorded state dict as a file, with arrays replaced, or left out where the value is None."""
    arrays = {k: np.ascontiguousarray(a) for k, a in (official_dit.recorded() | changes).items() if a is not None}
    safetensors.numpy.save_file(arrays, path)
    return path


def outputs(bundle, x, t, y):
    x, t, y = jnp.asarray(x), jnp.asarray(t, jnp.float32), jnp.asarray(y, jnp.int32)
    weights = jax.tree.map(jnp.asarray, bundle.collections)
    return np.asarray(jax.jit(model.apply, static_argnums=0)(bundle.config.model, weights, x, t, y, learngenes_only()))


def test_a_checkpoint_computes_what_the_official_code_does(tmp_path):
    bundle = load_dit(write(tmp_path / "a.safetensors"), heads=4)
    assert bundle.config.model == official_dit.CONFIG
    assert (bundle.class_names, bundle.groups) == (tuple("012345"), tuple(range(6)))
    x, t, y = (official_dit.REFERENCE[f"forward/{n}"] for n in ("x_nchw", "t", "y_last_is_null_class"))
    expected = official_dit.to_nhwc(official_dit.REFERENCE["forward/out_nchw"])
    out = outputs(bundle, official_dit.to_nhwc(x), t, y)
    assert np.max(np.abs(out - expected)) < 1e-5 * np.max(np.abs(expected))


def test_round_trip_is_the_identity(tmp_path):
    bundle = load_dit(write(tmp_path / "a.safetensors"), heads=4, class_names=tuple("uvwxyz"))
    assert save_dit(bundle, tmp_path / "b.safetensors") == 0
    written = safetensors.numpy.load_file(tmp_path / "b.safetensors")
    assert written.keys() == official_dit.recorded().keys()
    for name, array in official_dit.recorded().items():
        if name == "pos_embed":  # computed, in another order of roundings
            np.testing.assert_allclose(written[name], array, atol=1e-6)
        else:
            np.testing.assert_array_equal(written[name], array)
    again = load_dit(tmp_path / "b.safetensors")  # heads and names are in the file
    chex.assert_trees_all_equal(again.collections, bundle.collections)
    assert (again.config, again.class_names) == (bundle.config, bundle.class_names)


def test_settings_that_names_do_not_tell_survive(tmp_path):
    bundle = load_dit(write(tmp_path / "a.safetensors"), heads=4, time_frequencies="diffusers")
    settings = dataclasses.replace(bundle.config.model, mlp_norm_eps=1e-5)
    diffusion = dataclasses.replace(bundle.config.diffusion, schedule="cosine", prediction="v")
    bundle = dataclasses.replace(bundle, config=tiny.change(bundle.config, model=settings, diffusion=diffusion))
    assert save_dit(bundle, tmp_path / "b.safetensors") > 1e-4  # the official code computes something else
    assert load_dit(tmp_path / "b.safetensors").config == bundle.config


@pytest.mark.parametrize(("dtype", "off"), [(np.float16, 1e-3), (ml_dtypes.bfloat16, 1e-2)])
def test_numbers_of_16_bits(tmp_path, dtype, off):
    half = {name: a.astype(dtype) for name, a in official_dit.recorded().items()}
    header, data, at = {}, [], 0
    names = {np.float16: "F16", ml_dtypes.bfloat16: "BF16"}
    for name, a in half.items():
        header[name] = {"dtype": names[dtype], "shape": a.shape, "data_offsets": [at, at := at + a.nbytes]}
        data.append(a.tobytes())
    text = repr(header).replace("'", '"').replace("(", "[").replace(",)", "]").replace(")", "]").encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data))
    found = load_dit(tmp_path / "a.safetensors", heads=4).collections["params"]
    wanted = official_dit.collections()["params"]
    chex.assert_trees_all_equal_shapes_and_dtypes(found, wanted)
    chex.assert_trees_all_close(found, wanted, rtol=off, atol=1e-6)


@pytest.mark.parametrize("name", ["S/8", "B/4", "L/8", "XL/2"])
def test_published_sizes_follow_from_shapes(name):
    config = dit(name, factor=FactorConfig(projections=()))
    assert official.sizes(official.shapes_of(config), "x") == config


def table(rows, width=32):
    return np.zeros((rows, width), np.float32)


def nan(shape):
    return np.full(shape, np.nan, np.float32)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"blocks.1.mlp.fc2.bias": None}, {}, r"lacks the array 'blocks.1.mlp.fc2.bias' of shape \(32,\)"),
        ({"x_embedder.proj.weight": None}, {}, "lacks the array 'x_embedder.proj.weight', so it is not"),
        ({"blocks.0.attn.q_norm.weight": table(1)}, {}, "'blocks.0.attn.q_norm.weight', which this model does not"),
        ({"blocks.0.attn.proj.weight": table(31)}, {}, r"'blocks.0.attn.proj.weight' has shape \(31, 32\), but this"),
        ({"final_layer.linear.weight": table(33)}, {}, "has 33 rows, but must have 16 or, with a variance, 32"),
        ({"pos_embed": np.zeros((1, 15, 32), np.float32)}, {}, "has 15 tokens, but they must form a square"),
        ({"pos_embed": table(16)}, {}, r"'pos_embed' has shape \(16, 32\), but it must be \[1, tokens, width\]"),
        ({"pos_embed": 1.001 * official_dit.recorded()["pos_embed"]}, {}, "is 0.001 away from DiT's sine-cosine"),
        ({"t_embedder.mlp.2.bias": nan(32)}, {}, "'t_embedder.mlp.2.bias' has numbers that are not finite"),
        ({"t_embedder.mlp.2.bias": np.zeros(32)}, {}, "has dtype float64, but it must be one of float32"),
        ({"y_embedder.embedding_table.weight": table(1000)}, {}, "one more, for the null class"),
        ({}, {"class_names": tuple("0123456")}, "has 7 rows for 7 classes, but there must be one more"),
        ({}, {"class_names": ("a", "b")}, "2 class names are given, but .* has 6 classes"),
        ({}, {"class_names": (*"abcde", "\x1b[2J")}, "printable characters"),
        ({}, {"heads": None}, r"--heads is not given, but the width 32 of .* is none of the published \[384"),
        ({}, {"heads": 5}, "model.heads is 5, but it must be a divisor of model.width"),
        ({}, {"heads": 0}, "model.heads is 0, but it must be 1 or more"),
    ],
)  # fmt: skip
def test_refusals(tmp_path, changes, settings, message):
    path = write(tmp_path / "a.safetensors", **changes)
    with pytest.raises(UserError, match=message):
        load_dit(path, **{"heads": 4, **settings})


def test_a_table_of_999_classes_and_the_null_class_is_taken_if_they_are_named(tmp_path):
    path = write(tmp_path / "a.safetensors", **{"y_embedder.embedding_table.weight": table(1000)})
    assert load_dit(path, heads=4, class_names=tuple(map(str, range(999)))).config.model.num_classes == 999


def test_imagenet_is_named(tmp_path):
    path = write(tmp_path / "a.safetensors", **{"y_embedder.embedding_table.weight": table(1001)})
    names = load_dit(path, heads=4).class_names
    assert (len(set(names)), names[0], names[999]) == (1000, "n01440764", "n15075141")


@pytest.fixture(scope="module")
def gated():
    config = tiny.change(tiny.CONFIG, model={"num_classes": 3})
    return Bundle(
        config=config, collections=jax.tree.map(np.asarray, tiny.weights(config.model)), groups=(0, 1, 2),
        class_names=tuple("abc"), weights="ema", step=3, origin=Path("a run"),
    )  # fmt: skip


def test_tailors_must_be_folded_first(gated, tmp_path):
    with pytest.raises(UserError, match=r"has tailors of 3 groups, but .* compose --form dense --classes N"):
        save_dit(gated, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("settings", [{"form": "dense"}, {"form": "factored"}, {"max_params": 11_000}])
def test_what_was_composed_for_a_class_is_multiplied_out(gated, tmp_path, settings):
    one = compose(gated, classes=(2,), **settings).bundle
    dense = multiplied_out(one)
    assert all(form.plain for form in dense.config.model.forms.values())
    rng = np.random.default_rng(0)
    shape = (2, one.config.model.size, one.config.model.size, one.config.model.channels)
    x, t, y = rng.standard_normal(shape, np.float32), np.array([3, 700]), np.array([2, 2])
    expected = outputs(one, x, t, y)
    save_dit(one, tmp_path / "a.safetensors")
    for found in (dense, load_dit(tmp_path / "a.safetensors")):
        np.testing.assert_allclose(outputs(found, x, t, y), expected, atol=1e-5 * np.max(np.abs(expected)))


def test_only_state_dicts_are_replaced(tmp_path):
    bundle = load_dit(write(tmp_path / "a.safetensors"), heads=4)
    with pytest.raises(UserError, match="exists already"):
        save_dit(bundle, tmp_path / "a.safetensors")
    save_dit(bundle, tmp_path / "a.safetensors", replace=True)
    (tmp_path / "b.safetensors").write_text("something else")
    with pytest.raises(UserError, match="is not a safetensors file"):
        save_dit(bundle, tmp_path / "b.safetensors", replace=True)
    safetensors.numpy.save_file({"decoder.weight": np.zeros(3, np.float32)}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="holds no weights with the official names"):
        save_dit(bundle, tmp_path / "b.safetensors", replace=True)
    with pytest.raises(UserError, match=r"must end in .safetensors"):
        save_dit(bundle, tmp_path / "b.pt")


def test_new_settings_are_part_of_the_model():
    config = tiny.change(tiny.CONFIG, transfer={"method": "full"})
    for name, value in (("time_frequencies", "diffusers"), ("mlp_norm_eps", 1e-5)):
        with pytest.raises(UserError, match=rf"model.{name} is .*, but the source has"):
            plan(config, tiny.change(config, model={name: value}), "")
    with pytest.raises(UserError, match=r"model.mlp_norm_eps is 0.0, but it must be positive"):
        ModelConfig(mlp_norm_eps=0.0)
