"""The hand-written backward pass of attention is JAX's own."""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import pytest

from kind_jax.nn.attention import dot_product_attention, implementation


def test_attention_and_its_gradients():
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 5, 4, 8))
    weight = jax.random.normal(jax.random.key(1), v.shape)

    def grads(attention):
        return jax.jit(jax.value_and_grad(lambda q, k, v: jnp.sum(attention(q, k, v) * weight), (0, 1, 2)))(q, k, v)

    chex.assert_trees_all_close(grads(dot_product_attention), grads(jax.nn.dot_product_attention), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("platform", "capability", "dtype", "features", "expected"),
    [
        ("gpu", "9.0", "bfloat16", 64, "cudnn"),
        ("gpu", "8.0", "float16", 128, "cudnn"),
        ("gpu", "7.5", "float16", 64, "xla"),  # before Ampere
        ("gpu", "9.0", "float32", 64, "xla"),
        ("gpu", "9.0", "bfloat16", 132, "xla"),
        ("gpu", "gfx942", "bfloat16", 64, "xla"),  # AMD
        ("tpu", None, "bfloat16", 64, "xla"),
    ],
)
def test_fused_attention_is_asked_for_where_it_exists(platform, capability, dtype, features, expected):
    device = (
        SimpleNamespace(platform=platform)
        if capability is None
        else SimpleNamespace(platform=platform, compute_capability=capability)
    )
    assert implementation(device, jnp.dtype(dtype), features) == expected


@pytest.mark.parametrize(("lengths", "expected"), [((64, 256), "cudnn"), ((65, 65), "xla"), ((1, 64), "xla")])
def test_fused_attention_has_no_gradient_of_masked_odd_lengths(lengths, expected):
    device = SimpleNamespace(platform="gpu", compute_capability="9.0")
    assert implementation(device, jnp.dtype("bfloat16"), 64, lengths) == expected
