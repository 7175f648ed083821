"""The hand-written backward pass of attention is JAX's own."""

import chex
import jax
import jax.numpy as jnp

from kind_jax.nn.attention import dot_product_attention


def test_attention_and_its_gradients():
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 5, 4, 8))
    weight = jax.random.normal(jax.random.key(1), v.shape)

    def grads(attention):
        return jax.jit(jax.value_and_grad(lambda q, k, v: jnp.sum(attention(q, k, v) * weight), (0, 1, 2)))(q, k, v)

    chex.assert_trees_all_close(grads(dot_product_attention), grads(jax.nn.dot_product_attention), rtol=1e-4, atol=1e-5)
