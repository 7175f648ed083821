"""Factored layers: initialisation, gating, gradients, and their dense counterpart."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax import model, partition
from kind_jax.config import Energy, FactorConfig, Form, ModelConfig
from kind_jax.nn import gate as gates
from kind_jax.nn.init import Initializer, deal
from kind_jax.nn.linear import FactoredDense

D_IN, D_OUT, GROUPS = 12, 20, 4


def layer_and_dense(learngenes: int = 4, tailors: int = 2, energy: Energy = "none", *, zero: bool = False):
    """A factored layer with a non-zero bias, and the dense weight that its SVD started from.

    12 components, as many as the weight has: 4 learngenes and 4 groups of 2, unless told otherwise.
    """
    form = Form(shared=learngenes, tailors=tailors)
    layer = FactoredDense(D_IN, D_OUT, form, groups=GROUPS, energy=energy, init=Initializer(7), zero=zero)
    graphdef, collections = partition.split(layer)
    collections["params"]["bias"] = np.linspace(-1.0, 1.0, D_OUT, dtype=np.float32)
    return partition.join(graphdef, jax.tree.map(jnp.asarray, collections)), Initializer(7).xavier_uniform(D_IN, D_OUT)


def weight_of(layer: FactoredDense, group_weights) -> np.ndarray:
    """The effective dense weight, in float64, straight from the formula."""
    names = ("u", "s", "v", "u_t", "s_t", "v_t")
    u, s, v, u_t, s_t, v_t = (np.asarray(getattr(layer, name)[...], np.float64) for name in names)
    return u @ np.diag(s) @ v + sum(w * u_t[g] @ np.diag(s_t[g]) @ v_t[g] for g, w in enumerate(group_weights))


X = jax.random.normal(jax.random.key(0), (3, 5, D_IN))


@pytest.mark.parametrize("energy", ["none", "shuffle"])
def test_all_gates_on_equal_the_dense_initialisation(energy):
    layer, dense = layer_and_dense(energy=energy)
    expected = X.reshape(-1, D_IN) @ dense + layer.bias[...][None, :]
    found = layer(X, gates.all_groups(GROUPS)).reshape(-1, D_OUT)
    chex.assert_trees_all_close(found, expected, atol=1e-5)


class TestGates(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_every_kind_of_gate_follows_the_formula(self):
        layer, _ = layer_and_dense(energy="shuffle")
        soft = jnp.array([[0.2, 0.0, -0.5, 1.0], [0, 0, 0, 0], [1, 1, 0, 0.3]], jnp.float32)
        one_hot = np.eye(GROUPS)
        cases = [
            (gates.one_group(jnp.array([2, -1, 0])), [one_hot[2], 0 * one_hot[0], one_hot[0]]),
            (gates.learngenes_only(), [np.zeros(GROUPS)] * 3),
            (gates.all_groups(GROUPS, 0.25), [np.full(GROUPS, 0.25)] * 3),
            (gates.mixture(soft), list(np.asarray(soft))),
        ]
        apply = self.variant(lambda x, gate: layer(x, gate))
        for gate, weights in cases:
            y = apply(X, gate)
            for b in range(3):
                expected = np.asarray(X[b], np.float64) @ weight_of(layer, weights[b]) + np.asarray(layer.bias[...])
                np.testing.assert_allclose(y[b], expected, atol=1e-5)
            # Conditioning vectors have no token axis.
            chex.assert_trees_all_close(layer(X[:, 0], gate), y[:, 0], atol=1e-5)


def test_rescale_gives_the_active_part_the_energy_of_the_dense_weight():
    for energy in ("rescale", "shuffle_rescale"):
        layer, dense = layer_and_dense(energy=energy, tailors=1)
        active = np.mean([np.sum(weight_of(layer, np.eye(GROUPS)[g]) ** 2) for g in range(GROUPS)])
        np.testing.assert_allclose(active, np.sum(dense**2), rtol=1e-4)


def test_adaln_zero_starts_at_zero_and_learns():
    layer, _ = layer_and_dense(zero=True)
    np.testing.assert_array_equal(weight_of(layer, np.ones(GROUPS)), 0)
    np.testing.assert_allclose(layer.u[...].T @ layer.u[...], np.eye(4), atol=1e-5)
    assert np.linalg.norm(layer.u_t[...]) > 0


def test_components_beyond_the_rank_start_silent():
    for learngenes, tailors in ((16, 2), (4, 10)):
        layer, dense = layer_and_dense(learngenes=learngenes, tailors=tailors)
        assert layer.u.shape == (D_IN, learngenes)
        assert layer.u_t.shape == (GROUPS, D_IN, tailors)
        # With room for a whole SVD in learngenes and one group, each group's own model starts as the dense one.
        np.testing.assert_allclose(weight_of(layer, [1, 0, 0, 0]), dense, atol=1e-5)


@pytest.mark.parametrize(
    ("pool", "n_g", "n_t"), [(12, 4, 2), (12, 4, 1), (12, 4, 3), (12, 4, 8), (12, 4, 10), (12, 12, 2)]
)
def test_no_group_holds_a_component_twice(pool, n_g, n_t):
    shared, own = deal(pool, n_g, GROUPS, n_t)
    for group in own:
        assert len({*group, *shared}) == n_g + n_t
    if n_g + GROUPS * n_t <= pool:
        assert len({*own.ravel()}) == GROUPS * n_t


SMALL = ModelConfig(
    size=8, channels=1, patch=4, width=16, depth=2, heads=2, num_classes=GROUPS, learn_sigma=False,
    factor=FactorConfig(projections=("qkv", "o", "mlp_in", "mlp_out", "adaln"), learngenes=6, tailors=2),
)  # fmt: skip


def randomised(config: ModelConfig):
    """Weights with nothing zero, so that every path through the model carries signal."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda a: jnp.asarray(0.3 * rng.standard_normal(a.shape, np.float32)), model.definition(config)[1]
    )


_apply = jax.jit(model.apply, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def _gradient(config, weights, x, t, labels, gate):
    return jax.grad(lambda w: jnp.sum(model.apply(config, w, x, t, labels, gate) ** 2))(weights)


@pytest.mark.parametrize("null", ["learngenes", "keep"])
def test_foreign_tailors_get_exactly_zero_gradient(null):
    config = dataclasses.replace(SMALL, null_gate=null)
    labels = jnp.array([1, 3, 1, 0])
    dropped = jnp.array([False, False, False, True])
    x, t = jax.random.normal(jax.random.key(2), (4, 8, 8, 1)), jnp.array([10.0, 500.0, 900.0, 100.0])
    # Only the gate knows what is null, so that both share a compiled program.
    grads = _gradient(SMALL, randomised(SMALL), x, t, labels, model.class_gate(config)(labels, dropped))
    on = {1, 3} | ({0} if null == "keep" else set())
    for leaf in jax.tree.leaves(grads["tailors"]):
        for group in range(GROUPS):
            assert (np.abs(np.asarray(leaf[group])).max() > 0) == (group in on)
    assert all(np.abs(np.asarray(leaf)).max() > 0 for leaf in jax.tree.leaves(grads["learngenes"]))


def test_the_bank_may_be_larger_than_the_batch():
    """Only the rows in use are walked over; values and gradients are those of the whole bank."""
    factor = dataclasses.replace(SMALL.factor, projections=("mlp_in", "adaln"))  # of tokens, and of the conditioning
    config = dataclasses.replace(SMALL, num_classes=12, factor=factor)
    weights = randomised(config)
    x, t, labels = jax.random.normal(jax.random.key(2), (3, 8, 8, 1)), jnp.full(3, 300.0), jnp.array([7, 2, 7])
    gate = model.class_gate(config)(labels, jnp.zeros(3, bool))
    rows = jnp.array([2, 7])
    small = {**weights, "tailors": jax.tree.map(lambda a: a[rows], weights["tailors"])}
    few = gates.one_group(jnp.array([1, 0, 1]))
    whole, part = (_gradient(config, w, x, t, labels, g) for w, g in ((weights, gate), (small, few)))
    chex.assert_trees_all_close(
        jax.tree.map(lambda a: a[rows], whole["tailors"]), part["tailors"], rtol=1e-4, atol=1e-5
    )


def test_separate_projections_equal_the_fused_one():
    fused = dataclasses.replace(SMALL, factor=FactorConfig(projections=()))
    weights = jax.tree.map(np.asarray, randomised(fused))
    split = dataclasses.replace(fused, factor=FactorConfig(projections=("q", "k", "v"), learngenes=16, tailors=1))
    params = weights["params"]
    qkv = params["blocks"]["attention"]["qkv"]
    attention = {"o": params["blocks"]["attention"]["o"]}
    learngenes = {}
    for i, name in enumerate("qkv"):
        cut = slice(i * 16, (i + 1) * 16)
        attention[name] = {"bias": qkv["bias"][:, cut]}
        u, s, v = np.linalg.svd(qkv["kernel"][..., cut], full_matrices=False)
        learngenes[name] = {"u": u, "s": s, "v": v}
    tailors = jax.tree.map(lambda a: np.zeros(a.shape, np.float32), model.definition(split)[1]["tailors"])
    params = {**params, "blocks": {**params["blocks"], "attention": attention}}
    separate = {"learngenes": {"blocks": {"attention": learngenes}}, "tailors": tailors, "params": params}
    x, t, labels = jax.random.normal(jax.random.key(2), (3, 8, 8, 1)), jnp.full(3, 300.0), jnp.array([0, 2, 4])
    gate = gates.learngenes_only()
    found, expected = (_apply(c, w, x, t, labels, gate) for c, w in ((split, separate), (fused, weights)))
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)
