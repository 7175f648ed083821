"""Networks of other people: what is found again in a copy in another order, and what keeps its order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from kind_jax.errors import UserError
from kind_jax.merging import Settings, apply, plan, table_of, zip_weights
from kind_jax.merging.statistics import collect

PERMUTED = Settings(method="permute", stream="permute")
RNG = np.random.default_rng(0)
ORDER = RNG.permutation(8)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(function, weights, copy, x, settings=PERMUTED):
    """The copy computes the same, and merging it with the first one changes nothing."""
    want = np.asarray(function(weights, x))
    scale = np.abs(want).max()
    np.testing.assert_allclose(function(copy, x), want, atol=2e-6 * scale)
    merged = zip_weights(function, [weights, copy], [(x,)], settings)[0]
    np.testing.assert_allclose(function(merged, x), want, atol=1e-5 * scale)


def test_an_axis_of_which_a_part_keeps_its_order():
    """Eight hidden units, and three outputs beside them in one kernel: those are averaged, and not summed."""

    def function(w, x):
        h = x @ w["a"] + w["b"][None, :]
        return jnp.concatenate([jax.nn.relu(h[:, :8]) @ w["c"], h[:, 8:]], axis=1)

    w = {"a": normal(4, 11), "b": normal(11, seed=1), "c": normal(8, 2, seed=2)}
    order = np.concatenate([ORDER, [8, 9, 10]])
    check(function, w, {"a": w["a"][:, order], "b": w["b"][order], "c": w["c"][ORDER]}, normal(100, 4, seed=3))


def test_attention_whose_heads_have_an_axis_of_their_own():
    """Flax's: kernels [D, H, d], each head's features in an order of its own, and the heads in another one."""
    attention = nnx.MultiHeadAttention(3, 12, decode=False, rngs=nnx.Rngs(0))
    definition, params, rest = nnx.split(attention, nnx.Param, ...)

    def function(w, x):
        return nnx.merge(definition, w, rest)(x)

    first = jax.tree.map(np.asarray, nnx.to_pure_dict(params))
    heads = [2, 0, 1]
    inner = {"qk": [RNG.permutation(4) for _ in heads], "vo": [RNG.permutation(4) for _ in heads]}

    def moved(leaf, axis, what):
        parts = [np.take(np.take(leaf, h, axis), inner[what][i], axis) for i, h in enumerate(heads)]
        return np.stack(parts, axis)

    copy = {}
    for name, leaves in first.items():
        what = "qk" if name in ("query", "key") else "vo"
        axis = 0 if name == "out" else 1
        copy[name] = {"kernel": moved(leaves["kernel"], axis, what)}
        copy[name]["bias"] = leaves["bias"] if name == "out" else moved(leaves["bias"], 0, what)
    x = normal(20, 7, 12, seed=5)
    pure = lambda w, x: function(nnx.State(w), x)  # noqa: E731
    table = table_of(pure, first, x)
    assert sorted(len(node.inside) for node in table.nodes) == [0, 0, 2]
    with jax.numpy_rank_promotion("allow"):
        check(pure, first, copy, x)


@pytest.mark.parametrize(
    "ties",
    [
        lambda h: jax.nn.softmax(h, axis=1) * h,
        lambda h: h + h.sum(axis=1, keepdims=True) ** 2,
        lambda h: jnp.einsum("bhd,bgd->bhg", h, h)[..., None] * jnp.ones((1, 1, 1, 4)),
    ],
)
def test_what_ties_heads_together_leaves_their_features_no_order_of_their_own(ties):
    """Whatever the table allows must not change what another network computes."""

    def function(w, x):
        h = (x @ w["a"]).reshape(len(x), 3, 4)
        made = ties(h)
        return made.reshape(len(x), -1) @ w["c"][: made[0].size]

    size = ties(jnp.zeros((1, 3, 4))).size
    models = [{"a": normal(6, 12, seed=i), "c": normal(size, 2, seed=i + 9)} for i in range(2)]
    x = normal(200, 6, seed=7)
    table = table_of(function, models[0], x)
    leaves = [table.split(model) for model in models]
    nodes = [i for i in plan.measured(table, range(len(table.nodes))) if table.places[i]]
    found = collect(table, leaves, [(x,)], plan.wanted(table, nodes)) if nodes else []
    made = plan.make(table, dict(zip(nodes, found, strict=True)), 2, PERMUTED)
    moved = table.join(apply.adapted(table, made.maps, leaves[1], 1))
    want = np.asarray(function(models[1], x))
    np.testing.assert_allclose(function(moved, x), want, atol=1e-5 * np.abs(want).max())


def test_saturated_units_are_found_again():
    def function(w, x):
        return jax.nn.sigmoid(x @ w["a"] + w["b"][None, :]) @ w["c"]

    bias = np.where(np.arange(8) % 2, 60, 0).astype(np.float32)
    w = {"a": normal(4, 8), "b": bias, "c": normal(8, 2, seed=2)}
    check(function, w, {"a": w["a"][:, ORDER], "b": bias[ORDER], "c": w["c"][ORDER]}, normal(100, 4, seed=3))


def test_a_loop_that_begins_with_a_constant():
    def function(w, x):
        def turn(h, row):
            return jnp.tanh(row @ w["i"] + h @ w["h"]), h

        last, _ = jax.lax.scan(turn, jnp.zeros((len(x), 8)), jnp.moveaxis(x, 1, 0))
        return last @ w["o"]

    w = {"i": normal(3, 8), "h": 0.3 * normal(8, 8, seed=1), "o": normal(8, 2, seed=2)}
    copy = {"i": w["i"][:, ORDER], "h": w["h"][ORDER][:, ORDER], "o": w["o"][ORDER]}
    check(function, w, copy, normal(200, 5, 3, seed=3))


def test_what_cannot_be_merged_is_refused():
    def mlp(w, x):
        return jax.nn.relu(x @ w["a"]) @ w["b"]

    def over_the_batch(w, x):
        h = x @ w["a"]
        return (h - h.mean(0, keepdims=True)) @ w["b"]

    def low_rank(w, x):
        return jax.nn.relu(x @ (w["l"] @ w["r"])) @ w["b"]

    w, x = {"a": normal(4, 8), "b": normal(8, 2)}, normal(50, 4)
    factors = {"l": normal(4, 2), "r": normal(2, 8), "b": normal(8, 2)}
    for function, models, batches, said in (
        (mlp, [w], [(x,)], "there is 1 model to merge"),
        (mlp, [w, w], [x], "a batch is a ndarray, but it must be a tuple"),
        (mlp, [w, w], [(x[:0],)], "a batch has no samples"),
        (mlp, [w, w], [(x[:3],)], "were seen 3 times"),
        (mlp, [w, {**w, "b": normal(8, 3)}], [(x,)], "weights of model 1 have other names, shapes or types"),
        (over_the_batch, [w, w], [(x,)], "no feature of a changes on these images"),
        (low_rank, [factors] * 2, [(x,)], "is a factor of a weight"),
    ):
        with pytest.raises(UserError, match=said):
            zip_weights(function, models, batches, PERMUTED)
