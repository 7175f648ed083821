"""Taking collections apart and putting them together."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax import model, partition
from kind_jax.config import FactorConfig, ModelConfig
from kind_jax.errors import UserError
from kind_jax.nn.dit import DiT
from kind_jax.nn.gate import ClassGate
from kind_jax.nn.init import Initializer

CONFIG = ModelConfig(
    size=8, channels=1, patch=4, width=16, depth=2, heads=2, num_classes=4, learn_sigma=False,
    factor=FactorConfig(learngenes=6, tailors=2),
)  # fmt: skip


def test_split_then_join_is_the_identity_and_covers_every_parameter_once():
    module = DiT(CONFIG, init=Initializer(0))
    graphdef, collections = partition.split(module)
    _, again = partition.split(partition.join(graphdef, collections))
    chex.assert_trees_all_equal(again, collections)
    paths = [f"{path}" for tree in collections.values() for path in partition.flatten(tree)]
    assert len(paths) == len(set(paths))
    # Every weight of a DiT of this size, counted by hand: factored weights hold (N_G + groups N_T)(d_in + d_out + 1).
    projections = {"qkv": (16, 48), "o": (16, 16), "mlp_in": (16, 64), "mlp_out": (64, 16)}
    factored = sum((6 + 4 * 2) * (d_in + d_out + 1) + d_out for d_in, d_out in projections.values())
    adaln = 16 * 96 + 96
    dense = (16 * 16 + 16) + (256 * 16 + 16) + (16 * 16 + 16) + 5 * 16 + (16 * 32 + 32) + (16 * 16 + 16)
    assert sum(a.size for a in jax.tree.leaves(collections)) == 2 * (factored + adaln) + dense


def test_definition_takes_the_shapes_of_init():
    found, wanted = model.init(CONFIG, 0), model.definition(CONFIG)[1]
    for name in partition.COLLECTIONS:
        partition.check_like(found[name], wanted[name], name)


def test_init_is_a_function_of_the_seed():
    chex.assert_trees_all_equal(model.init(CONFIG, 3), model.init(CONFIG, 3))
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(model.init(CONFIG, 3), model.init(CONFIG, 4))


def test_a_selected_bank_serves_its_classes_as_the_whole_one():
    weights = jax.tree.map(lambda a: jnp.asarray(a) + 0.05, model.init(CONFIG, 0))  # nothing zero
    labels, x, t = jnp.array([3, 1, 3]), jax.random.normal(jax.random.key(0), (3, 8, 8, 1)), jnp.full(3, 500.0)
    kept = jnp.zeros(3, bool)
    whole = model.apply(CONFIG, weights, x, t, labels, model.class_gate(CONFIG)(labels, kept))
    few = {**weights, "tailors": partition.select(weights["tailors"], [3, 1])}
    part = model.apply(CONFIG, few, x, t, labels, model.class_gate(CONFIG, (3, 1))(labels, kept))
    chex.assert_trees_all_close(part, whole, rtol=1e-5, atol=1e-6)
    both = partition.concatenate(
        [partition.select(weights["tailors"], [0, 1]), partition.select(weights["tailors"], [2, 3])]
    )
    chex.assert_trees_all_equal(both, weights["tailors"])


def test_transplant_takes_whole_collections_and_refuses_other_shapes():
    ours, theirs = model.init(CONFIG, 0), model.init(CONFIG, 1)
    moved = partition.transplant(ours, theirs)
    chex.assert_trees_all_equal(moved["learngenes"], theirs["learngenes"])
    chex.assert_trees_all_equal(moved["tailors"], ours["tailors"])
    smaller = model.init(ModelConfig(**{**vars(CONFIG), "factor": FactorConfig(learngenes=5, tailors=2)}), 0)
    with pytest.raises(UserError, match=r"learngenes: 'blocks/attention/o/s' has shape \(2, 5\).*needs \(2, 6\)"):
        partition.transplant(ours, smaller)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("b"), "here lacks the array 'b' of shape"),
        (lambda t: t.update(c=np.zeros(1)), "here holds the array 'c'"),
        (lambda t: t.update(b=np.zeros((2, 2), np.float32)), r"'b' has shape \(2, 2\).*needs \(2,\)"),
        (lambda t: t.update(b=np.zeros(2, np.float64)), "'b' has dtype float64.*needs float32"),
    ],
)
def test_check_like_names_what_differs(change, message):
    wanted = {"a": np.zeros(3, np.float32), "b": np.zeros(2, np.float32)}
    found = dict(wanted)
    partition.check_like(found, wanted, "here")
    change(found)
    with pytest.raises(UserError, match=message):
        partition.check_like(found, wanted, "here")


def test_rows_that_do_not_exist_and_banks_that_disagree():
    bank = {"u_t": jnp.zeros((3, 2)), "s_t": jnp.zeros((3, 1))}
    with pytest.raises(UserError, match="row is 3, but it must be between 0 and 2"):
        partition.select(bank, [3])
    with pytest.raises(UserError, match="disagree on the number of groups"):
        partition.select({**bank, "s_t": jnp.zeros((2, 1))}, [0])


def test_class_gates():
    labels, dropped = jnp.array([0, 2, 1, 4]), jnp.array([False, False, True, False])
    grouped = ModelConfig(**{**vars(CONFIG), "groups": (0, 0, 1, 1)})
    gate = model.class_gate(grouped)(labels, dropped)  # class 4 is the null class
    np.testing.assert_array_equal(gate.weight[:, 0], [1, 1, 0, 0])
    np.testing.assert_array_equal(gate.index[:2, 0], [0, 1])

    def dense(null: str):
        gate = ClassGate(row_of_class=(0, 1, 2), groups=3, null=null)(jnp.array([1, 1]), jnp.array([False, True]))
        weights = np.zeros((2, 3))
        for b in range(2):
            np.add.at(weights[b], np.asarray(gate.index[b]), np.asarray(gate.weight[b]))
        return weights.round(4).tolist()

    own = [0, 1, 0]
    assert dense("learngenes") == [own, [0, 0, 0]]
    assert dense("keep") == [own, own]
    assert dense("all") == [own, [1, 1, 1]]
    assert dense("mean") == [own, [0.3333] * 3]
    with pytest.raises(UserError, match=r"class is 1, but its tailors are not loaded; the loaded ones serve \[3\]"):
        model.class_gate(CONFIG, (3,)).check((1,))
    with pytest.raises(UserError, match="class is 7, but it must be between 0 and 3"):
        model.class_gate(CONFIG).check((7,))
