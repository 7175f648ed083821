"""Decomposing dense models: what learngenes and tailors hold, what is lost and reported, odd weights, refusals."""

import dataclasses
import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from kind_jax import model
from kind_jax.deploy import decompose as module
from kind_jax.deploy.bundle import Bundle, export, open_bundle
from kind_jax.deploy.decompose import decompose, picture, record, rows
from kind_jax.deploy.factorise import factorise, method_of
from kind_jax.deploy.weights import take_apart
from kind_jax.errors import UserError
from kind_jax.nn.gate import learngenes_only, one_group

DENSE = tiny.change(tiny.CONFIG, model={"factor": {"projections": ()}, "label_embedding": True, "num_classes": 5})


def dense(config=DENSE) -> Bundle:
    return Bundle(
        config=config,
        collections=jax.tree.map(np.asarray, tiny.weights(config.model)),
        groups=tuple(range(config.model.num_groups)),
        class_names=tuple(map(str, range(config.model.num_classes))),
        weights="ema",
        step=3,
        origin=Path("dense"),
    )


def kernels(bundle, rows=()):
    return {w.name: w for w in take_apart(bundle.config.model, bundle.collections, rows)}


def product(parts, row=None):
    u, s, v = (np.asarray(a if row is None else a[row], np.float64) for a in parts)
    return (u * s) @ v


def evaluate(bundle, gate):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((3, 8, 8, 1), np.float32))
    times, labels = jnp.array([10.0, 400.0, 900.0]), jnp.array([0, 3, 5])
    return model.apply(bundle.config.model, jax.device_put(bundle.collections), images, times, labels, gate)


@pytest.mark.parametrize("projections", [("qkv", "o", "mlp_in", "mlp_out"), ("q", "v", "adaln")])
def test_at_full_rank_nothing_is_lost(projections, tmp_path):
    source = dense()
    wanted = evaluate(source, learngenes_only())
    found = decompose(source, learngenes=None, tailors=2, projections=projections)
    assert found.bundle.config.model.factor.ranks is None  # one program for all blocks, as a model trained from scratch
    for gate in (learngenes_only(), one_group(jnp.array([4, 0, 2]))):
        chex.assert_trees_all_close(evaluate(found.bundle, gate), wanted, atol=2e-5)
    assert all(0 < layer.error_max < 3e-7 and layer.energy_learngenes > 0.999999 for layer in found.layers)
    export(found.bundle, tmp_path / "art")
    chex.assert_trees_all_equal(open_bundle(tmp_path / "art").collections, found.bundle.collections)


def test_ranks_may_differ_between_projections():
    config = tiny.change(DENSE, model={"mlp_ratio": 0.5})
    found = decompose(dense(config), learngenes=None, tailors=1)
    forms = found.bundle.config.model.forms
    assert (forms["0/qkv"].shared, forms["1/mlp_in"].shared) == (16, 8)
    wanted = evaluate(dense(config), learngenes_only())
    chex.assert_trees_all_close(evaluate(found.bundle, one_group(jnp.array([4, 0, 2]))), wanted, atol=2e-5)


@pytest.mark.parametrize("randomised", [False, True])
@pytest.mark.parametrize("residual", ["spectrum", "shared", "zero"])
def test_the_report_says_what_the_weights_hold(residual, randomised):
    source = dense()
    found = decompose(source, learngenes=6, tailors=3, residual=residual, randomised=randomised)
    before, after = kernels(source), kernels(found.bundle, range(5))
    assert [layer.name for layer in found.layers] == [n for n in before if not n.endswith("adaln")]
    for layer in found.layers:
        kernel, weight = before[layer.name].kernel, after[layer.name]
        u, s, v = np.linalg.svd(kernel.astype(np.float64), full_matrices=False)
        always = product(weight.shared)
        np.testing.assert_allclose(always, (u[:, :6] * s[:6]) @ v[:6], atol=1e-5)
        np.testing.assert_allclose(layer.energy_learngenes, np.sum(s[:6] ** 2) / np.sum(s**2), rtol=1e-5)
        errors = [np.linalg.norm(kernel - always - product(weight.own, g)) / np.linalg.norm(kernel) for g in range(5)]
        np.testing.assert_allclose([layer.error, layer.error_max], [np.mean(errors), max(errors)], rtol=1e-5)
        np.testing.assert_allclose(layer.energy, 1 - np.mean(np.square(errors)), rtol=1e-5)
        own = np.asarray(weight.own.s)
        np.testing.assert_allclose(np.linalg.norm(weight.own.u, axis=1), 1, atol=1e-5)  # silent ones point somewhere
        if residual == "shared":
            best = (u[:, :9] * s[:9]) @ v[:9]
            np.testing.assert_allclose(always + product(weight.own, 4), best, atol=1e-5)
        else:
            rest = np.tile(s[6:], 2)[: own.size] if residual == "spectrum" else np.zeros(own.size)
            np.testing.assert_allclose(own.ravel(), rest, atol=1e-5)
        assert layer.method == ("randomised" if randomised else "exact")
    assert found.before < found.after == sum(leaf.size for leaf in jax.tree.leaves(found.bundle.collections))


def test_classes_of_a_group_share_tailors():
    found = decompose(dense(), learngenes=4, tailors=2, groups=(0, 1, 1, 0, 2)).bundle
    assert (found.groups, found.config.model.group_of_class) == ((0, 1, 2), (0, 1, 1, 0, 2))
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(found.collections["tailors"]))


def test_the_same_seed_gives_the_same_model():
    def leaves(seed, residual="zero", **settings):
        return decompose(
            dense(), learngenes=4, tailors=2, residual=residual, seed=seed, **settings
        ).bundle.collections  # fmt: skip

    chex.assert_trees_all_equal(leaves(1, randomised=True), leaves(1, randomised=True))
    one, two = (leaves(seed)["tailors"]["blocks"]["mlp_in"]["u_t"] for seed in (1, 2))
    assert not np.array_equal(one, two)
    assert not np.array_equal(one[:, 0], one[:, 1])  # nor are blocks alike
    chex.assert_trees_all_equal(leaves(1, "shared"), leaves(2, "shared"))  # nothing is random


def odd(kind):
    rng = np.random.default_rng(3)
    full = rng.standard_normal((24, 40)).astype(np.float32)
    thin = rng.standard_normal((40, 5)) @ rng.standard_normal((5, 24))
    return {
        "zero": np.zeros((24, 40), np.float32),
        "deficient": thin.astype(np.float32),
        "huge": full * np.float32(1e36),
        "tiny": full * np.float32(1e-30),
        "equal": np.eye(24, 40, dtype=np.float32),
        "one": np.ones((1, 7), np.float32),
    }[kind]


@pytest.mark.parametrize("kind", ["zero", "deficient", "huge", "tiny", "equal", "one"])
@pytest.mark.parametrize("method", ["exact", "randomised"])
def test_odd_weights(kind, method):
    kernel = odd(kind)
    pool = min(kernel.shape)
    u, s, v = parts = factorise(kernel, pool, method=method, seed=5)
    np.testing.assert_allclose(u.T @ u, np.eye(pool), atol=3e-6)
    np.testing.assert_allclose(v @ v.T, np.eye(pool), atol=3e-6)
    assert np.all(s >= 0)
    np.testing.assert_allclose(product(parts), kernel, rtol=1e-5, atol=3e-6 * float(np.max(kernel)))


def test_few_components_of_a_large_weight_are_sketched():
    rng = np.random.default_rng(0)
    kernel = (rng.standard_normal((600, 60)) * 0.8 ** np.arange(60)) @ rng.standard_normal((60, 700))
    kernel = kernel.astype(np.float32)
    assert method_of((600, 700), 40, None) == "randomised"
    assert (
        method_of((600, 700), 400, None) == method_of((64, 64), 2, None) == method_of((600, 700), 40, False) == "exact"
    )
    sketched, exact = (factorise(kernel, 40, method=m, seed=0) for m in ("randomised", "exact"))
    np.testing.assert_allclose(sketched.s, exact.s, rtol=1e-3)
    np.testing.assert_allclose(product(sketched), product(exact), atol=2e-3 * float(exact.s[0]))


def test_table_picture_and_record():
    told = []
    found = decompose(dense(), learngenes=4, tailors=2, on_layer=told.append)
    assert tuple(told) == found.layers
    table, kept = rows(found), json.loads(json.dumps(record(found)))
    assert [row[0] for row in table] == [layer.name for layer in found.layers] + ["all"]
    assert {len(row) for row in table} == {len(module.HEADER)}
    squares = np.array([layer["norm"] ** 2 for layer in kept["layers"]])
    energies = np.array([layer["energy"] for layer in kept["layers"]])
    assert kept["energy"] == pytest.approx(np.sum(squares * energies) / np.sum(squares))
    assert kept["parameters"] == {"dense": found.before, "decomposed": found.after}
    assert picture(found).startswith(b"\x89PNG")


def test_refused_before_any_work(monkeypatch):
    source = dense()
    monkeypatch.setattr(module, "divide", None)
    for settings, message in [
        ({"learngenes": 17}, r"learngenes is 17, but it must be at most 16, the rank of 'qkv'"),
        ({"learngenes": 0}, r"learngenes is 0, but it must be 1 or more"),
        ({"tailors": 0}, r"tailors is 0, but it must be 1 or more"),
        ({"projections": ()}, r"projections is empty"),
        ({"projections": ("q", "qkv")}, r"either the fused 'qkv' or any of"),
        ({"groups": (0, 1)}, r"model.groups is \(0, 1\), but it must be one group for each of the 5 classes"),
        ({"seed": -1}, r"seed is -1"),
    ]:
        with pytest.raises(UserError, match=message):
            decompose(source, **({"learngenes": 4, "tailors": 2} | settings))
    with pytest.raises(UserError, match=r"dense serves 1 of its 5 groups"):
        decompose(dataclasses.replace(source, groups=(2,)), learngenes=4, tailors=2)
    broken = jax.tree.map(np.array, source.collections)
    broken["params"]["blocks"]["mlp_out"]["kernel"][1, 3, 4] = np.inf
    with pytest.raises(UserError, match=r"the weight '1/mlp_out' has the norm inf"):
        decompose(dataclasses.replace(source, collections=broken), learngenes=4, tailors=2)
    monkeypatch.setattr(module, "memory", lambda: 100_000)
    with pytest.raises(UserError, match=r"tailors is 9 in each of 5 groups, which makes 23,400 parameters"):
        decompose(source, learngenes=4, tailors=9)
    with pytest.raises(UserError, match=r"components in its weight '0/qkv', but only a dense model"):
        decompose(dense(tiny.CONFIG), learngenes=4, tailors=2)
