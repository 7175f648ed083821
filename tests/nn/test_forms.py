"""Weights of every form: dense or factored, with or without tailors, alike or different in each block."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from kind_jax import model, partition
from kind_jax.config import FactorConfig, Form, MeshConfig, ModelConfig
from kind_jax.errors import UserError
from kind_jax.nn import gate as gates
from kind_jax.nn.init import Initializer
from kind_jax.nn.linear import FactoredDense
from kind_jax.train import sharding

GROUPS = 4
BASE = dataclasses.replace(tiny.CONFIG.model, num_classes=GROUPS)
NAMES = ("qkv", "o", "mlp_in", "mlp_out", "adaln")


def ranked(**changes: tuple[int, int]) -> ModelConfig:
    """All dense but for ``changes``, whose names are like b0_qkv."""
    ranks = {f"{i}/{name}": (-1, 0) for i in range(2) for name in NAMES}
    ranks |= {key[1:].replace("_", "/", 1): value for key, value in changes.items()}
    return dataclasses.replace(BASE, factor=FactorConfig(ranks=tuple((k, *v) for k, v in ranks.items())))


MIXED = ranked(b0_qkv=(5, 0), b0_o=(-1, 3), b0_mlp_in=(0, 2), b1_qkv=(4, 2), b1_mlp_out=(0, 0), b1_adaln=(3, 1))


@pytest.mark.parametrize("form", [(4, 0), (None, 2), (0, 2), (0, 0), (4, 2)])
def test_each_form_follows_the_formula(form):
    form = Form(shared=form[0], tailors=form[1])
    graphdef, collections = partition.split(FactoredDense(12, 20, form, groups=GROUPS, init=Initializer(0)))
    rng = np.random.default_rng(1)
    collections = jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape, np.float32)), collections)
    layer = partition.join(graphdef, collections)
    x = rng.standard_normal((3, 5, 12)).astype(np.float32)
    rows = [2, -1, 0]
    found = layer(jnp.asarray(x), gates.one_group(jnp.array(rows)))
    own, shared, params = (jax.tree.map(np.asarray, collections[n]) for n in ("tailors", "learngenes", "params"))
    assert set(params) == ({"kernel", "bias"} if form.shared is None else {"bias"})
    assert bool(shared) == bool(form.shared)
    assert bool(own) == bool(form.tailors)
    for b, row in enumerate(rows):
        weight = np.zeros((12, 20))
        if form.shared is None:
            weight += params["kernel"]
        elif form.shared:
            weight += shared["u"] @ np.diag(shared["s"]) @ shared["v"]
        if form.tailors and row >= 0:
            weight += own["u_t"][row] @ np.diag(own["s_t"][row]) @ own["v_t"][row]
        np.testing.assert_allclose(found[b], x[b] @ weight + params["bias"], atol=1e-4)


def test_a_layer_without_tailors_gathers_nothing():
    text = {}
    for tailors in (0, 2):
        layer = FactoredDense(12, 20, Form(shared=4, tailors=tailors), groups=GROUPS, init=Initializer(0))
        graphdef, collections = partition.split(layer)
        f = lambda c, x, g: partition.join(graphdef, c)(x, g)  # noqa: B023, E731
        text[tailors] = str(jax.make_jaxpr(f)(collections, jnp.zeros((3, 12)), gates.one_group(jnp.array([0, 1, 2]))))
    assert "gather" in text[2]
    assert "gather" not in text[0]


def test_tailors_beside_a_dense_kernel_start_silent():
    layer = FactoredDense(12, 20, Form(shared=None, tailors=2), groups=GROUPS, init=Initializer(0))
    assert not np.any(layer.s_t[...])
    assert np.all(np.linalg.norm(layer.u_t[...], axis=1) > 0)


@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_blocks_of_different_forms_equal_stacked_ones(remat):
    """The same weights in a list of blocks and stacked; one of many groups is shrunk to the rows in use."""
    stacked = dataclasses.replace(BASE, num_classes=9, remat=remat)
    weights = tiny.weights(stacked)
    ranks = tuple((n, -1 if f.shared is None else f.shared, f.tailors) for n, f in stacked.forms.items())
    listed = dataclasses.replace(stacked, factor=FactorConfig(ranks=ranks))
    apart = {}
    for name, tree in weights.items():
        axis = 1 if name == "tailors" else 0
        blocks = {str(i): jax.tree.map(lambda a, i=i: jnp.take(a, i, axis), tree["blocks"]) for i in range(2)}  # noqa: B023
        apart[name] = {**tree, "blocks": blocks}
    for name in partition.COLLECTIONS:
        partition.check_like(apart[name], model.definition(listed)[1][name], name)
    x, t, labels = jax.random.normal(jax.random.key(0), (3, 8, 8, 1)), jnp.full(3, 300.0), jnp.array([7, 2, 7])
    gate = model.class_gate(stacked)(labels, jnp.zeros(3, bool))

    def value(w, config):
        return jnp.sum(model.apply(config, w, x, t, labels, gate) ** 2)

    both = jax.jit(jax.value_and_grad(value), static_argnums=1)
    (wanted, gradient), (found, parts) = both(weights, stacked), both(apart, listed)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    chex.assert_trees_all_close(
        parts["tailors"]["blocks"]["1"], jax.tree.map(lambda a: a[:, 1], gradient["tailors"]["blocks"]), rtol=1e-4,
        atol=1e-5,
    )  # fmt: skip


def test_every_array_of_a_mixed_model_has_its_place():
    shapes = model.definition(MIXED)[1]
    chex.assert_trees_all_equal_shapes(model.init(MIXED, 0), shapes)
    mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
    assert sharding.spec("learngenes/blocks/1/attention/qkv/u", (16, 4), mesh)[:2] == ("fsdp", "tensor")
    assert sharding.spec("params/blocks/0/attention/o/kernel", (16, 16), mesh)[0] == "fsdp"
    assert sharding.spec("tailors/blocks/1/adaln/u_t", (4, 16, 1), mesh)[0] == "fsdp"
    sharding.shard_like(shapes, mesh)
    weights = tiny.weights(MIXED)
    x, t, labels = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.full(2, 300.0), jnp.array([1, 3])
    run = jax.jit(lambda w: model.apply(MIXED, w, x, t, labels, model.class_gate(MIXED)(labels, jnp.zeros(2, bool))))
    placed = jax.device_put(weights, sharding.shard_like(shapes, mesh))
    chex.assert_trees_all_close(jax.device_get(run(placed)), jax.device_get(run(weights)), atol=1e-5)


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        (lambda r: r[1:], r"model.factor.ranks lacks '0/qkv'"),
        (lambda r: (*r, ("2/o", 1, 0)), "model.factor.ranks names '2/o', but this model has no such projection"),
        (lambda r: (*r, r[0]), "model.factor.ranks is .*free of repetitions"),
        (lambda r: (("0/qkv", -2, 0), *r[1:]), r"model.factor.ranks is \('0/qkv', -2, 0\), but it must be"),
        (lambda r: (("0/qkv", 1, -1), *r[1:]), r"model.factor.ranks is \('0/qkv', 1, -1\), but it must be"),
    ],
)
def test_impossible_ranks_are_refused(ranks, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(BASE, factor=FactorConfig(ranks=ranks(MIXED.factor.ranks)))
