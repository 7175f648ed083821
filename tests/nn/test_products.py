"""The order of products, per-sample components and GELU: equal to the plain formulas, forward and backward."""

import chex
import jax
import jax.numpy as jnp
import pytest

from kind_jax import partition
from kind_jax.config import Form
from kind_jax.nn import cohorts, contraction
from kind_jax.nn import gate as gates
from kind_jax.nn.activation import gelu
from kind_jax.nn.init import Initializer
from kind_jax.nn.linear import FactoredDense
from kind_jax.nn.per_sample import FUSE_UP_TO, low_rank


def value_and_gradients(f, *args):
    weight = jax.random.normal(jax.random.key(9), jax.eval_shape(f, *args).shape)
    return jax.jit(jax.value_and_grad(lambda a: jnp.sum(f(*a) * weight)))(args)


@pytest.mark.parametrize("components", [1, FUSE_UP_TO, FUSE_UP_TO + 1])
def test_components_of_each_sample(components):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((3, 5, 6), (3, components, 6), (3, components), (3, components, 7))
    x, u, s, v = (jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True))
    s = s.at[1].set(0.0)  # the null class

    def plain(x, u, s, v):
        return jnp.einsum("btd,bnd,bn,bno->bto", x, u, s, v)

    found, expected = value_and_gradients(low_rank, x, u, s, v), value_and_gradients(plain, x, u, s, v)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("devices", [1, 2], ids=["one by one", "as a batch"])
@pytest.mark.parametrize("learngenes", [3, 0])
def test_components_of_each_cohort(devices, learngenes, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = ((6, 5, 8), (8, learngenes), (learngenes, 7), (2, 8, 4), (2, 4, 7))
    x, su, sv, u, v = (jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True))
    weight = jnp.ones((6, 4)).at[1].set(0.0).at[4, :2].set(0.5)  # the null class, and a mixture

    def plain(x, su, sv, u, v):
        each = jnp.repeat(u, 3, axis=0), jnp.repeat(v, 3, axis=0)
        return x @ su @ sv + jnp.einsum("btd,bdn,bn,bno->bto", x, each[0], weight, each[1])

    def whole(x, su, sv, u, v):
        return cohorts.low_rank(x, cohorts.Factors(su, sv) if learngenes else None, cohorts.Factors(u, v), weight)

    found, expected = value_and_gradients(whole, x, su, sv, u, v), value_and_gradients(plain, x, su, sv, u, v)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


def test_gelu_is_the_tanh_approximation():
    x = jnp.linspace(-6, 6, 101)
    found, expected = (value_and_gradients(f, x) for f in (gelu, lambda x: jax.nn.gelu(x, approximate=True)))
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gate", [gates.one_group(jnp.array([1, -1, 0])), gates.all_groups(2, 0.5)], ids=["own", "one"])
def test_the_order_of_products_and_where_outputs_are_scaled_change_nothing(gate):
    x = jax.random.normal(jax.random.key(0), (3, 5, 12))
    scale = jax.random.normal(jax.random.key(1), (3, 20))

    def layer(order):
        made = FactoredDense(12, 20, Form(shared=4, tailors=2), groups=2, contraction=order, init=Initializer(0))
        graphdef, collections = partition.split(made)
        return partition.join(graphdef, jax.tree.map(jnp.asarray, collections))

    expected = layer("auto")(x, gate) * scale[:, None, :]
    for order in ("auto", "factored", "folded"):
        chex.assert_trees_all_close(layer(order)(x, gate, scale), expected, rtol=1e-4, atol=1e-5)


def test_the_order_follows_flops():
    d = 384
    assert contraction.flops("factored", d, d // 4, 3 * d, 2048) == 2 * 2048 * (d // 4) * 4 * d
    assert contraction.flops("folded", d, d // 4, 3 * d, 2048) == 2 * 3 * d * d * (2048 + d // 4)
    assert contraction.choose("auto", d, d // 2, 3 * d, 2048) == "factored"  # thin: two thirds of the FLOPs
    assert contraction.choose("auto", d, 3 * d // 4, d, 4096) == "folded"  # 1.5 times the FLOPs if factored
    assert contraction.choose("auto", d, 3 * d // 4, d, 32) == "factored"  # too few rows to pay for folding
    assert contraction.choose("folded", d, d // 2, 3 * d, 2048) == "folded"
