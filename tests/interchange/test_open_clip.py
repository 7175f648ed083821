"""open_clip's CoCa: read, checked, written back; its embeddings, logits and captions, which are recorded."""

import dataclasses
from pathlib import Path

import chex
import cocas
import jax
import jax.numpy as jnp
import numpy as np
import open_clip_states as states
import pytest
from open_clip_states import CASES, HEADS, coca, filled

from kind_jax import model
from kind_jax.captioning.decode import greedy
from kind_jax.config.coca import TowerConfig
from kind_jax.errors import UserError
from kind_jax.interchange import open_clip

REFERENCE = np.load(Path(__file__).parents[1] / "fixtures/open_clip_reference.npz")


def read(case, **settings):
    given = {name: value for name, value in CASES[case].items() if name != "shapes"}
    return open_clip.read(filled(CASES[case]["shapes"]), origin="x", **(HEADS | given | settings))


def outputs(config, collections, images, texts):
    @jax.jit
    def call(collections, images, texts):
        net = cocas.network(config, collections)
        image, text = net.encode_image(images), net.encode_text(texts)
        logits = net.caption(text.words, image.tokens)[0]
        return {"image": image.embedding, "text": text.embedding, "logits": logits, "temperature": net.temperature}

    return jax.tree.map(np.asarray, call(collections, jnp.asarray(images), jnp.asarray(texts, jnp.int32)))


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_theirs(case):
    """Texts with and without padding, and the text of no words."""
    config, collections = read(case)
    found = outputs(config, collections, states.images(), states.texts())
    for name in ("image", "text", "logits", "temperature"):
        wanted = REFERENCE[f"{case} {name}"]
        error = np.max(np.abs(found[name] - wanted)) / np.max(np.abs(wanted))
        print(f"{case} {name}: relative error {error:.1e}")
        assert error < 1e-5
    config = dataclasses.replace(config, mean=None, std=None)  # of images as they are
    said = greedy(config, collections, jnp.asarray(states.images(16)), bos=states.BOS, eos=states.EOS).tokens
    wanted = REFERENCE[f"{case} greedy"]
    # The last word of theirs is made to be the end of the text.
    np.testing.assert_array_equal(said[:, :-1], wanted[:, :-1])
    assert len({tuple(row) for row in wanted.tolist()}) > 8


@pytest.mark.parametrize("case", CASES)
def test_round_trips_are_exact(case):
    state = filled(CASES[case]["shapes"])
    config, collections = read(case)
    chex.assert_trees_all_equal_shapes_and_dtypes(collections, model.definition(config)[1])
    written = open_clip.write(config, jax.tree.map(jnp.asarray, collections))
    assert written.keys() == state.keys()
    for name, array in state.items():
        assert (written[name].dtype, written[name].shape) == (np.float32, array.shape)
        np.testing.assert_array_equal(written[name], array)


def test_settings():
    config, _ = read("valid")
    assert (config.size, config.patch, config.vocabulary, config.context, config.queries) == (12, 4, 30, 10, 5)
    assert (config.image, config.text) == (
        TowerConfig(width=24, depth=1, heads=4, hidden=96), TowerConfig(width=24, depth=2, heads=3, hidden=96)
    )  # fmt: skip
    assert (config.multimodal.depth, config.multimodal.heads, config.pooler_heads, config.norm_eps) == (1, 3, 6, 1e-5)
    assert (config.cls_mask, config.activation, config.mean) == ("valid", "quick_gelu", open_clip.MOMENTS[0])
    wide = filled(coca(width=128, image_width=64, layers=(1, 1, 1), vocabulary=4))
    config, _ = open_clip.read(wide, mean=(0.5,) * 3, std=(0.5,) * 3, origin="x")
    assert [tower.heads for tower in config.towers.values()] == [1, 2, 2]
    assert (config.pooler_heads, config.cls_mask, config.activation, config.std) == (8, "shifted", "gelu", (0.5,) * 3)


@pytest.mark.parametrize(("name", "image", "text"), [
    ("ViT-B-32", (768, 12, 32, 7), (512, 12)), ("ViT-L-14", (1024, 24, 14, 16), (768, 12)),
])  # fmt: skip
def test_published_sizes(name, image, text):
    """One layer stands for all, as arrays take memory; heads follow from widths."""
    shapes = coca(width=text[0], image_width=image[0], layers=(1, 1, 1), vocabulary=49_408, context=76, queries=256,
                  patch=image[2], side=image[3])  # fmt: skip
    state = {n: np.broadcast_to(np.float32(0), shape) for n, shape in shapes.items()}
    config, _ = open_clip.read(state, origin=name)
    assert (config.size, config.patch, config.context, config.vocabulary) == (224, image[2], 76, 49_408)
    assert [tower.heads for tower in config.towers.values()] == [image[0] // 64, text[0] // 64, text[0] // 64]


def test_what_older_and_other_files_have():
    """Masks beside the weights, a scale with an axis, and 16 bits."""
    wanted = read("shifted")
    state = filled(CASES["shifted"]["shapes"])
    state |= {f"{tower}.attn_mask": np.full((10, 10), -np.inf, np.float32) for tower in ("text", "text_decoder")}
    state["logit_scale"] = state["logit_scale"][None]
    chex.assert_trees_all_equal(open_clip.read(state, origin="x", **HEADS), wanted)
    half = {name: a.astype(np.float16) for name, a in filled(CASES["shifted"]["shapes"]).items()}
    chex.assert_trees_all_close(open_clip.read(half, origin="x", **HEADS)[1], wanted[1], atol=2e-3)


BAD = {
    "visual.proj": (None, r"lacks the array 'visual.proj' of shape \(24, 24\)"),
    "text.cls_emb": (None, r"lacks the array 'text.cls_emb' of shape \(24,\)"),
    "visual.conv1.weight": (None, r"lacks the array 'visual.conv1.weight' of shape \[width, channels"),
    "text_decoder.cross_attn.1.attn.in_proj_weight": (None, r"lacks the array '.*in_proj_weight' of shape \(72, 24\)"),
    "visual.attn_pool.attn.k_proj_weight": ((24, 24), r"has shape \(24, 24\), but this model needs \(24, 32\)"),
    "visual.positional_embedding": ((9, 32), "has 9 tokens, but they must form a square and one for the class token"),
    "visual.attn_pool_contrastive.query": ((1, 24), "holds the array 'visual.attn_pool_contrastive.query', which"),
    "logit_bias": ((), "holds the array 'logit_bias', which"),
    "text_decoder.resblocks.0.mlp.c_fc.weight": ((24, 96), r"has shape \(24, 96\), but this model needs \(96, 24\)"),
    "logit_scale": (np.array(np.nan, np.float32), "'logit_scale' has numbers that are not finite"),
    "text.token_embedding.weight": (np.zeros((30, 24)), "has dtype float64, but it must be one of float32"),
}


@pytest.mark.parametrize("name", BAD)
def test_arrays_that_are_refused(name):
    value, message = BAD[name]
    array = np.zeros(value, np.float32) if isinstance(value, tuple) else value
    state = filled(CASES["shifted"]["shapes"]) | {name: array}
    with pytest.raises(UserError, match=message):
        open_clip.read({n: a for n, a in state.items() if a is not None}, origin="x", **HEADS)


def test_heads_that_do_not_follow_or_fit():
    state = filled(CASES["shifted"]["shapes"])
    with pytest.raises(UserError, match="--text-heads is not given, but it must be, since the width 24 of"):
        open_clip.read(state, heads=4, origin="x")
    with pytest.raises(UserError, match=r"model.text.width is 24, but it must be a multiple of 5 heads"):
        open_clip.read(state, origin="x", **(HEADS | {"text_heads": 5}))
    with pytest.raises(UserError, match=r"model.pooler_heads is 7, but it must be a divisor of 24"):
        open_clip.read(state, origin="x", **(HEADS | {"pooler_heads": 7}))


def test_networks_that_it_does_not_have():
    config, collections = read("shifted")
    for name, value, wanted in (("pooler", "cascade", "'first'"), ("cross", "paper", "'open_clip'"),
                                ("norm_eps", 1e-6, "1e-05"), ("embedding", 8, "that of model.text, 24")):  # fmt: skip
        with pytest.raises(UserError, match=f"model.{name} is .*, but it must be {wanted}.* for open_clip"):
            open_clip.write(dataclasses.replace(config, **{name: value}), collections)
