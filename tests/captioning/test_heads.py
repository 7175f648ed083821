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
    longer = RUN(CONFIG, WEIGHTS, head, PAIRS[:, 0], jnp.pad(TOKENS, ((0, 0), (0, 2))))
    np.testing.assert_allclose(found, longer, atol=1e-5)
    other = RUN(CONFIG, WEIGHTS, head, PAIRS[:, 1], TOKENS)
    assert float(jnp.min(jnp.max(jnp.abs(found - other), axis=1))) > 1e-4


def test_both_images_of_a_pair_count_and_their_order():
    head = jax.tree.map(jnp.asarray, heads.init(CONFIG, 2, images=2))
    found = RUN(CONFIG, WEIGHTS, head, PAIRS, TOKENS)
    for changed in (PAIRS[:, ::-1], PAIRS.at[:, 0].set(0), PAIRS.at[:, 1].set(0)):
        assert float(jnp.max(jnp.abs(RUN(CONFIG, WEIGHTS, head, changed, TOKENS) - found))) > 1e-4


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


def test_other_numbers_of_images_are_refused():
    head = heads.init(CONFIG, 2, images=2)
    with pytest.raises(UserError, match=r"are 1 for each text, but the head must have 2"):
        heads.logits(CONFIG, WEIGHTS, head, PAIRS[:, 0], TOKENS)
    with pytest.raises(UserError, match="must be as many"):
        heads.logits(CONFIG, WEIGHTS, head, PAIRS[:2], TOKENS)
    with pytest.raises(UserError, match="classes is 0"):
        heads.init(CONFIG, 0)
