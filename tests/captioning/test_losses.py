"""The two losses of CoCa where their values are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax.captioning.losses import captioning, contrastive, token_accuracy
from kind_jax.errors import UserError

N, V = 6, 11


def test_contrast_of_embeddings_that_are_all_one_and_of_pairs_far_apart():
    same = jnp.ones((N, 4)) / 2
    np.testing.assert_allclose(contrastive(same, same, 0.07), 2 * np.log(N), rtol=1e-5)
    np.testing.assert_allclose(contrastive(same, same, 0.07, "mean"), np.log(N), rtol=1e-5)
    apart = jnp.eye(N)
    assert float(contrastive(apart, apart, 0.01)) < 1e-6
    assert float(contrastive(apart, apart[::-1], 0.07)) > 10


def test_contrast_is_the_sum_of_two_cross_entropies():
    rng = np.random.default_rng(0)
    image, text = (rng.standard_normal((N, 5)).astype(np.float32) for _ in range(2))
    logits = image @ text.T / 0.3
    rows, columns = (-np.mean(np.diag(jax.nn.log_softmax(logits, axis=axis))) for axis in (1, 0))
    found = contrastive(jnp.asarray(image), jnp.asarray(text), 0.3)
    np.testing.assert_allclose(found, rows + columns, rtol=1e-5)


def test_words_that_are_all_alike_cost_their_logarithm():
    targets = jnp.asarray([[3, 4, 2, 0], [5, 2, 0, 0]])
    nothing = jnp.zeros((2, 4, V))
    np.testing.assert_allclose(captioning(nothing, targets), np.log(V), rtol=1e-6)
    np.testing.assert_allclose(captioning(nothing, targets, "texts"), 2.5 * np.log(V), rtol=1e-6)


def test_padding_counts_for_nothing():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 4, V)).astype(np.float32)
    targets = jnp.asarray([[3, 4, 2, 0], [5, 2, 0, 0]])
    found = captioning(jnp.asarray(logits), targets), token_accuracy(jnp.asarray(logits), targets)
    logits[0, 3] = 1e6
    logits[1, 2:] = np.nan
    again = captioning(jnp.asarray(logits), targets), token_accuracy(jnp.asarray(logits), targets)
    assert [float(a) for a in found] == [float(a) for a in again]
    grads = jax.grad(lambda x: captioning(x, targets))(jnp.asarray(rng.standard_normal((2, 4, V)), jnp.float32))
    assert not np.any(np.asarray(grads)[0, 3])
    assert float(token_accuracy(10 * jax.nn.one_hot(targets, V), targets)) == 1
    assert float(captioning(jnp.zeros((1, 2, V)), jnp.zeros((1, 2), jnp.int32))) == 0  # not NaN


def test_shapes_that_are_no_pairs_are_refused():
    with pytest.raises(UserError, match="they must be pairs"):
        contrastive(jnp.zeros((2, 3)), jnp.zeros((3, 3)), 1.0)
    with pytest.raises(UserError, match="but targets for"):
        captioning(jnp.zeros((2, 3, V)), jnp.zeros((2, 4), jnp.int32))
