"""Heads on CoCa for what a text says about an image, or about two."""

import cocas
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kind_jax.captioning import heads
from kind_jax.errors import UserError

CONFIG = cocas.config()
WEIGHTS = cocas.weights(CONFIG)
TOKENS = jnp.asarray([[1, 5, 6, 2, 0, 0], [1, 7, 2, 0, 0, 0], [1, 3, 4, 5, 2, 0]])
RUN = jax.jit(heads.logits, static_argnums=0)
PAIRS = jnp.stack([cocas.images(CONFIG, 3, 1), cocas.images(CONFIG, 3, 2)], axis=1)


def test_padding_has_no_influence():
    head = jax.tree.map(jnp.asarray, heads.init(CONFIG, 4))
    found = RUN(CONFIG, WEIGHTS, head, PAIRS[:, 0], TOKENS)
    assert found.shape == (3, 4)
    empty = RUN(CONFIG, WEIGHTS, head, PAIRS[:, 0], TOKENS.at[1].set(0))
    assert np.isfinite(empty).all()
    np.testing.assert_allclose(found[::2], empty[::2], atol=1e-5)
    longer = RUN(CONFIG, WEIGHTS, head, PAIRS[:, 0], jnp.pad(TOKENS, ((0, 0), (0, 2))))
    np.testing.assert_allclose(found, longer, atol=1e-5)
    other = RUN(CONFIG, WEIGHTS, head, PAIRS[:, 1], TOKENS)
    assert float(jnp.min(jnp.max(jnp.abs(found - other), axis=1))) > 1e-4


def test_both_images_of_a_pair_count_and_their_order():
    head = jax.tree.map(jnp.asarray, heads.init(CONFIG, 2, images=2))
    found = RUN(CONFIG, WEIGHTS, head, PAIRS, TOKENS)
    for changed in (PAIRS[:, ::-1], PAIRS.at[:, 0].set(0), PAIRS.at[:, 1].set(0)):
        assert float(jnp.max(jnp.abs(RUN(CONFIG, WEIGHTS, head, changed, TOKENS) - found))) > 1e-4


@pytest.mark.slow
def test_a_head_learns_and_reaches_the_encoder():
    head, labels = jax.tree.map(jnp.asarray, heads.init(CONFIG, 2)), jnp.asarray([0, 1, 0])

    def loss(head, weights):
        found = heads.logits(CONFIG, weights, head, PAIRS[:, 0], TOKENS)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(found, labels))

    grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    tx = optax.adam(1e-2)
    state, first = tx.init(head), None
    for _ in range(10):
        value, (own, below) = grads(head, WEIGHTS)
        first = value if first is None else first
        updates, state = tx.update(own, state)
        head = optax.apply_updates(head, updates)
    assert float(value) < 0.7 * float(first)
    assert float(jnp.max(jnp.abs(below["params"]["image"]["position"]))) > 0


@pytest.mark.parametrize(
    ("images", "tokens", "sentence"),
    [
        (PAIRS[:, 0], TOKENS, "are 1 for each text, but the head must have 2"),
        (PAIRS[:2], TOKENS, r"tokens is \(3, 6\), but it must be 2 texts"),
        (PAIRS, TOKENS[0], r"tokens is \(6,\)"),
        (PAIRS, jnp.ones((3, 11), jnp.int32), "of 1 to 10 tokens"),
        (PAIRS, TOKENS.astype(jnp.float32), "must be whole numbers"),
        (PAIRS[:, :, 1:], TOKENS, r"an array of images \(8, 8, 3\)"),
    ],
)
def test_other_shapes_are_refused(images, tokens, sentence):
    with pytest.raises(UserError, match=sentence):
        heads.logits(CONFIG, WEIGHTS, heads.init(CONFIG, 2, images=2), images, tokens)


@pytest.mark.parametrize(("name", "value"), [("classes", 0), ("classes", 2.0), ("images", 0), ("seed", -1)])
def test_impossible_heads_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}"):
        heads.init(CONFIG, **({"classes": 2} | {name: value}))
