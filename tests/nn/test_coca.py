"""CoCa: its sizes are the published ones, and each output depends on what it must depend on, and on nothing else."""

import dataclasses
import functools
import math

import chex
import cocas
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax import model
from kind_jax.config.coca import TowerConfig, coca

CONFIG = cocas.config(text=TowerConfig(width=16, depth=2, heads=2))
TEXTS = jnp.array([[1, 5, 6, 7, 2, 0, 0], [1, 4, 2, 0, 0, 0, 0], [1, 3, 9, 8, 10, 7, 2]])


@functools.partial(jax.jit, static_argnums=0)
def run(config, collections, images, texts):
    net = cocas.network(config, collections)
    image, text = net.encode_image(images), net.encode_text(texts)
    logits, states = net.caption(text.words, image.tokens)
    return {"image": image, "text": text, "logits": logits, "states": states}


def outputs(config=CONFIG, texts=TEXTS, *, images=None, collections=None, seed=0):
    collections = cocas.weights(CONFIG) if collections is None else collections
    images = cocas.images(config, len(texts), seed) if images is None else images
    return jax.tree.map(np.asarray, run(config, collections, images, texts))


def without(collections, leaf, at):
    """The weights with an array of the unimodal decoder zero at one place."""
    text = collections["params"]["text"]
    return collections | {"params": collections["params"] | {"text": text | {leaf: text[leaf].at[at].set(0)}}}


def distance(a, b):
    return float(np.max(np.abs(a - b)))


@pytest.mark.parametrize(("name", "image", "millions"), [("base", 86.0, 382.8), ("large", 303.6, 787.4)])
def test_published_sizes(name, image, millions):
    counts = parameters(name)
    assert counts["image"] == pytest.approx(image, abs=0.1)
    assert sum(counts[tower] for tower in ("image", "text", "multimodal")) == pytest.approx(millions, abs=0.1)
    assert coca(name).patches == 256


def test_published_size_of_two_billion():
    counts = parameters("2b")
    assert sum(counts[tower] for tower in ("image", "text", "multimodal")) == pytest.approx(2190, abs=10)


def parameters(name):
    """In millions, by the top of the tree."""
    shapes = model.definition(coca(name))[1]["params"]
    return {top: sum(math.prod(a.shape) for a in jax.tree.leaves(tree)) / 1e6 for top, tree in shapes.items()}


def test_cls_sees_every_word():
    before = outputs()["text"].embedding[2]
    for at in range(TEXTS.shape[1]):
        changed = TEXTS.at[2, at].set(6)
        assert distance(outputs(texts=changed)["text"].embedding[2], before) > 1e-3, at


def test_cls_and_words_do_not_see_padding():
    """What the token of padding looks like is in its row of the table alone."""
    collections = cocas.weights(CONFIG)
    before, after = outputs(collections=collections), outputs(collections=without(collections, "table", 0))
    np.testing.assert_array_equal(before["text"].embedding, after["text"].embedding)
    real = np.asarray(TEXTS != 0)
    np.testing.assert_array_equal(before["text"].words[real], after["text"].words[real])
    np.testing.assert_array_equal(before["logits"][real], after["logits"][real])


def test_the_shifted_mask_sees_one_token_of_padding():
    """As the released weights of open_clip do; a full text has none, but CLS does not see itself where one is short."""
    config = dataclasses.replace(CONFIG, cls_mask="shifted")
    collections = cocas.weights(config)
    other = without(collections, "table", 0)
    before, after = (outputs(config, collections=each)["text"] for each in (collections, other))
    moved = np.max(np.abs(before.embedding - after.embedding), axis=1)
    assert moved[:2].min() > 1e-3
    assert moved[2] == 0
    full = outputs(collections=collections)["text"]
    np.testing.assert_array_equal(before.words[2], full.words[2])


@pytest.mark.parametrize("mask", ["valid", "shifted"])
def test_words_see_no_later_words_and_not_cls(mask):
    config = dataclasses.replace(CONFIG, cls_mask=mask)
    collections = cocas.weights(config)
    before = outputs(config, collections=collections)
    for t in range(TEXTS.shape[1] - 1):
        after = outputs(config, TEXTS.at[2, t + 1 :].set(5), collections=collections)
        np.testing.assert_array_equal(before["text"].words[2, : t + 1], after["text"].words[2, : t + 1])
        np.testing.assert_array_equal(before["logits"][2, : t + 1], after["logits"][2, : t + 1])
    after = outputs(config, collections=without(collections, "cls_token", ...))
    np.testing.assert_array_equal(before["text"].words, after["text"].words)
    assert distance(before["text"].embedding, after["text"].embedding) > 1e-3


def test_padding_moves_cls_alone():
    """CLS stands behind the padding, so a text that is padded further has CLS in another place, its words the same."""
    before, after = outputs(), outputs(texts=jnp.pad(TEXTS, ((0, 0), (0, 2))))
    real = np.asarray(TEXTS != 0)
    chex.assert_trees_all_close(after["text"].words[:, : TEXTS.shape[1]][real], before["text"].words[real], atol=1e-5)
    assert distance(after["text"].embedding, before["text"].embedding) > 1e-3


@pytest.mark.parametrize("pooler", ["cascade", "parallel", "first"])
def test_images_move_captions_and_no_texts(pooler):
    config = dataclasses.replace(CONFIG, pooler=pooler)
    collections = cocas.weights(config)
    before, after = (outputs(config, collections=collections, seed=seed) for seed in (0, 1))
    chex.assert_trees_all_equal(before["text"], after["text"])
    assert np.abs(before["logits"] - after["logits"]).max(axis=-1).min() > 1e-3  # at every word
    assert np.abs(before["image"].embedding - after["image"].embedding).max(axis=-1).min() > 1e-3
    assert before["image"].tokens.shape == (3, config.queries - (pooler == "first"), 16)


def test_poolers_differ_in_what_the_embedding_comes_from():
    """Beside the captioning pooler, the embedding does not depend on its queries; on top of it, it does."""
    for pooler, depends in (("cascade", True), ("parallel", False), ("first", True)):
        config = dataclasses.replace(CONFIG, pooler=pooler)
        collections = cocas.weights(config)
        before = outputs(config, collections=collections)["image"]
        caption = collections["params"]["poolers"]["caption"]
        caption["query"] = -caption["query"]
        after = outputs(config, collections=collections)["image"]
        assert (distance(before.embedding, after.embedding) > 1e-3) == depends, pooler
        assert distance(before.tokens, after.tokens) > 1e-3


@pytest.mark.parametrize("size", [8, 16])
def test_shapes(size):
    config = dataclasses.replace(CONFIG, size=size, queries=256)
    found = jax.eval_shape(
        functools.partial(run, config), model.definition(config)[1],
        jax.ShapeDtypeStruct((3, size, size, 3), jnp.float32), jax.ShapeDtypeStruct((3, 7), jnp.int32),
    )  # fmt: skip
    image, text = found["image"], found["text"]
    assert (image.embedding.shape, text.embedding.shape) == ((3, 8), (3, 8))
    assert (image.tokens.shape, image.states.shape) == ((3, 256, 16), (1, 3, (size // 4) ** 2, 24))
    assert (text.words.shape, text.states.shape) == ((3, 7, 16), (2, 3, 8, 16))
    assert (found["logits"].shape, found["states"].shape) == ((3, 7, 11), (1, 3, 7, 16))


def test_embeddings_have_unit_length():
    found = outputs()
    for embedding in (found["image"].embedding, found["text"].embedding):
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=-1), 1, rtol=1e-5)
    states = found["text"].states
    np.testing.assert_array_equal(states[-1][:, :-1], found["text"].words)


def test_unrolling_and_computing_again_change_bits_alone():
    """And gradients are finite, also where a text is all padding."""
    config = dataclasses.replace(CONFIG, cross="open_clip")
    collections = cocas.weights(config, scale=0.1)
    images, texts = cocas.images(config, 4), jnp.concatenate([TEXTS, jnp.zeros((1, 7), jnp.int32)])

    def grads(config):
        def loss(collections):
            found = run(config, collections, images, texts)
            pairs = jnp.sum(found["image"].embedding * found["text"].embedding, -1)
            return jnp.sum(jax.nn.log_softmax(found["logits"])[:, :, 5]) + jnp.sum(pairs)

        return jax.tree.map(np.asarray, jax.jit(jax.value_and_grad(loss))(collections))

    plain = grads(config)
    chex.assert_tree_all_finite(plain)
    chex.assert_trees_all_close(grads(dataclasses.replace(config, scan_unroll=1, remat=True)), plain, atol=1e-4)
    used = {name: tree for name, tree in plain[1]["params"].items() if name != "heads"}
    assert all(np.abs(a).max() > 0 for a in jax.tree.leaves(used))
