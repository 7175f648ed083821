"""Composing: exact without a budget, within the budget with one, and honest about both."""

import dataclasses
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from kind_jax import model
from kind_jax.config import FactorConfig, dit
from kind_jax.deploy import components, cost, picture
from kind_jax.deploy.budget import Budget, Offer, spend
from kind_jax.deploy.bundle import Bundle, export, open_bundle
from kind_jax.deploy.compose import compose
from kind_jax.deploy.importance import estimate
from kind_jax.errors import UserError
from kind_jax.nn.gate import learngenes_only
from kind_jax.nn.init import Components
from kind_jax.partition import fingerprint

# Wide enough for some weights to be cheaper dense (o, 10 components) and some factored (mlp_out).
CONFIG = tiny.change(
    tiny.CONFIG,
    model={
        "num_classes": 5,
        "groups": (0, 0, 1, 1, 2),
        "factor": FactorConfig(projections=("o", "mlp_out"), learngenes=7, tailors=3),
    },
)  # fmt: skip


def bundle_of(config=CONFIG) -> Bundle:
    return Bundle(
        config=config,
        collections=tiny.weights(config.model),
        groups=tuple(range(config.model.num_groups)),
        class_names=tuple(f"name {c}" for c in range(config.model.num_classes)),
        weights="ema",
        step=7,
        origin=Path("nowhere"),
    )


SOURCE = bundle_of()


@jax.jit(static_argnums=(0, 1))
def _apply(settings, gates, collections, x, t, labels):
    return model.apply(settings, collections, x, t, labels, gates(labels, jnp.zeros(len(labels), bool)))


def output(bundle, classes):
    labels = jnp.array(classes)
    x = jax.random.normal(jax.random.key(1), (len(classes), 8, 8, 1))
    return _apply(bundle.config.model, bundle.gates, bundle.collections, x, jnp.full(len(classes), 400.0), labels)


def distance(bundle, classes, source=SOURCE) -> float:
    wanted = output(source, classes)
    return float(jnp.linalg.norm(output(bundle, classes) - wanted) / jnp.linalg.norm(wanted))


def count(bundle) -> int:
    return sum(a.size for a in jax.tree.leaves(bundle.collections))


@pytest.mark.parametrize("form", ["auto", "dense", "factored"])
@pytest.mark.parametrize("classes", [(3,), (0, 1), (1, 4)], ids=str)
def test_without_a_budget_nothing_is_lost(classes, form):
    composed = compose(SOURCE, classes=classes, form=form)
    found, record = composed.bundle, composed.record
    assert distance(found, classes) < 1e-5
    assert found.groups == tuple(sorted({CONFIG.model.groups[c] for c in classes}))
    assert record.folded == (len(found.groups) == 1) == (not found.collections["tailors"])
    assert record.energy == 1.0
    assert all((k.energy, k.error) == (1.0, 0.0) for k in record.weights)
    assert record.source == fingerprint(SOURCE.collections["learngenes"])
    # Shapes alone give the sizes of the arrays.
    settings = found.config.model
    assert count(found) == cost.total(settings, len(found.groups)).parameters == composed.after.parameters
    forms = {k.name: k.form for k in record.weights}
    if form == "dense" and record.folded:
        assert settings.factor == FactorConfig(projections=())  # the same program as a plain DiT
    if form == "factored":
        assert forms["0/o"] == forms["1/mlp_out"] == "factored"
        assert (settings.factor.ranks is None) == (not record.folded)
    if form == "auto" and record.folded:
        assert (forms["0/o"], forms["0/mlp_out"]) == ("dense", "factored")
        least = min(compose(SOURCE, classes=classes, form=f).after.parameters for f in ("dense", "factored"))
        assert composed.after.parameters < least


def test_separate_projections_become_a_plain_dense_model():
    source = bundle_of(
        tiny.change(CONFIG, model={"factor": FactorConfig(projections=("q", "k", "v"), learngenes=6, tailors=2)})
    )
    composed = compose(source, classes=(2,), form="dense").bundle
    assert set(composed.collections["params"]["blocks"]["attention"]) == {"qkv", "o"}
    assert distance(composed, (2, 3), source) < 1e-5


@pytest.mark.parametrize("criterion", ["svd", "energy"])
@pytest.mark.parametrize("classes", [(3,), (1, 4)], ids=str)
def test_budgets_are_respected_and_more_is_never_worse(classes, criterion):
    whole = compose(SOURCE, classes=classes).after
    kept = []
    lowest = 0.72 if criterion == "svd" else 0.88  # what is dense in the source is dropped by svd only
    for share in (lowest, 0.9, 0.93, 0.96, 0.98, 1.0):
        for bounds in ({"max_params": int(share * whole.parameters)}, {"max_flops": int(share * whole.flops)}):
            composed = compose(SOURCE, classes=classes, criterion=criterion, **bounds)
            assert count(composed.bundle) == composed.after.parameters
            if "max_params" in bounds:
                assert composed.after.parameters <= bounds["max_params"]
                kept.append(composed.record.energy)
            else:
                assert composed.after.flops <= bounds["max_flops"]
    assert kept == sorted(kept)
    assert kept[0] < 0.999
    assert kept[-1] > 1 - 1e-9
    both = compose(SOURCE, classes=classes, max_params=int(0.9 * whole.parameters), max_flops=int(0.9 * whole.flops))
    assert both.after.parameters <= 0.9 * whole.parameters
    assert both.after.flops <= 0.9 * whole.flops


def test_svd_truncation_is_the_best_of_its_rank():
    parts = components.chain(
        *(
            Components(*(np.random.default_rng(i).standard_normal(s) for s in ((16, 4), (4,), (4, 40))))
            for i in range(2)
        )
    )
    whole = components.product(parts)
    anew = components.refactor(parts)
    np.testing.assert_allclose(components.product(anew), whole, atol=1e-9)
    np.testing.assert_allclose(components.energies(anew).sum(), np.sum(whole**2))
    np.testing.assert_allclose(components.norm2(parts), np.sum(whole**2))
    u, s, v = np.linalg.svd(whole)
    for rank in (1, 3, 6):
        best = (u[:, :rank] * s[:rank]) @ v[:rank]
        np.testing.assert_allclose(components.product(components.take(anew, range(rank))), best, atol=1e-8)


@pytest.mark.parametrize("classes", [(3,), (1, 4)], ids=str)
def test_rank_keeps_the_best_of_each_weight(classes):
    composed = compose(SOURCE, classes=classes, rank=5, criterion="energy", form="factored")
    for kept in composed.record.weights:
        if kept.of_learngenes:
            assert kept.learngenes + kept.tailors == 5
            assert (kept.of_learngenes, kept.of_tailors) == (7, 3)
            assert 0 < kept.energy < 1
            assert 0 < kept.error < 1
    # By hand, for one weight of the folded model.
    if len(classes) == 1:
        leaf = {n: t["blocks"]["mlp_out"] for n, t in SOURCE.collections.items()}
        u, s, v = (np.asarray(leaf["learngenes"][x][1]) for x in "usv")
        u_t, s_t, v_t = (np.asarray(leaf["tailors"][f"{x}_t"][1, 1]) for x in "usv")
        every = Components(np.concatenate([u, u_t], 1), np.concatenate([s, s_t]), np.concatenate([v, v_t]))
        best = sorted(range(10), key=lambda i: -np.linalg.norm(every.s[i] * np.outer(every.u[:, i], every.v[i])))[:5]
        found = composed.bundle.collections["learngenes"]["blocks"]["1"]["mlp_out"]
        wanted, whole = components.product(components.take(every, best)), components.product(every)
        np.testing.assert_allclose(
            components.product(Components(found["u"], found["s"], found["v"])), wanted, atol=1e-6
        )
        error = np.linalg.norm(whole - wanted) / np.linalg.norm(whole)
        np.testing.assert_allclose(composed.record.weights[8].error, error, rtol=1e-5)


def test_the_loss_finds_the_component_that_matters():
    """A huge component that no input reaches has all the energy, but the loss does not mind its loss."""
    weights = jax.tree.map(np.array, SOURCE.collections)
    shared = weights["learngenes"]["blocks"]["mlp_out"]
    shared["s"][0, 0], shared["v"][0, 0] = 1e3, 0.0
    shared["v"][0, 0, 0] = 1e-3
    weights["params"]["blocks"]["mlp_in"]["kernel"][0, :, :8] = 0
    weights["params"]["blocks"]["mlp_in"]["bias"][0, :8] = 0
    shared["u"][0, :, 0] = 0
    shared["u"][0, :8, 0] = 1.0  # reads only hidden units that are always 0
    source = dataclasses.replace(SOURCE, collections=weights)
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(-1, 1, (20, 8, 8, 1)).astype(np.float32), np.arange(20, dtype=np.int32) % 5
    scores = estimate(source, images, labels, classes=(3,), samples=16)
    shared, own = scores["0/mlp_out"]
    assert shared.shape == (7,)
    assert own.shape == (3, 3)
    assert shared[0] == 0
    assert np.all(shared[1:] > 0)
    assert np.all(own[1] > 0)
    assert not np.any(own[[0, 2]])  # groups of which no image was seen
    assert scores["0/qkv"] == (None, None)
    by_energy = compose(source, classes=(3,), rank=9, criterion="energy", form="factored")
    by_loss = compose(source, classes=(3,), rank=9, criterion="loss", importance=scores, form="factored")
    assert by_loss.bundle.collections["learngenes"]["blocks"]["0"]["mlp_out"]["s"].max() < 1e3
    assert by_energy.bundle.collections["learngenes"]["blocks"]["0"]["mlp_out"]["s"].max() == 1e3
    with pytest.raises(UserError, match="importance belongs to 'loss'"):
        compose(source, classes=(3,), criterion="loss")
    # A part of the bank: the rows are those that are aboard.
    part = dataclasses.replace(
        source, groups=(1,), collections={**weights, "tailors": jax.tree.map(lambda a: a[1:2], weights["tailors"])}
    )
    alone = estimate(part, images, labels, classes=(3,), samples=16)["0/mlp_out"]
    np.testing.assert_allclose(alone[0], shared, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(alone[1][0], own[1], rtol=1e-4, atol=1e-12)


def test_refusals():
    least = compose(SOURCE, classes=(3,), max_params=10**6, criterion="energy", form="factored", rank=None)
    fixed = (
        least.after.parameters - sum(k.parameters for k in least.record.weights if k.form == "factored") + 2 * (16 + 16)
    )
    with pytest.raises(UserError, match=rf"max_params is 50, but it must be {fixed} or more, the smallest model"):
        compose(SOURCE, classes=(3,), max_params=50, criterion="energy")
    assert compose(SOURCE, classes=(3,), max_params=fixed, criterion="energy").after.parameters == fixed
    with pytest.raises(UserError, match="max_flops is 7, but it must be"):
        compose(SOURCE, classes=(3,), max_flops=7)
    with pytest.raises(UserError, match="class is 9, but it must be between 0 and 4"):
        compose(SOURCE, classes=(9,))
    part = dataclasses.replace(
        SOURCE,
        groups=(0,),
        collections={**SOURCE.collections, "tailors": jax.tree.map(lambda a: a[:1], SOURCE.collections["tailors"])},
    )
    with pytest.raises(UserError, match=r"class is 3, but its tailors are not loaded; the loaded ones serve \[0, 1\]"):
        compose(part, classes=(3,))
    with pytest.raises(UserError, match="rank is 3 beside a budget"):
        compose(SOURCE, classes=(3,), rank=3, max_params=10**6)
    with pytest.raises(UserError, match="rank is 3, but form 'dense'"):
        compose(SOURCE, classes=(3,), rank=3, form="dense")


@pytest.mark.parametrize("classes", [(3,), (1, 4)], ids=str)
def test_a_composed_model_is_an_artifact(classes, tmp_path):
    composed = compose(
        SOURCE, classes=classes, max_params=int(0.85 * compose(SOURCE, classes=classes).after.parameters)
    )
    export(composed.bundle, tmp_path / "art")
    files = {p.relative_to(tmp_path / "art").as_posix() for p in (tmp_path / "art").rglob("*") if p.is_file()}
    tailors = set() if len(classes) == 1 else {"tailors/0.safetensors", "tailors/2.safetensors"}
    assert files == {"README.md", "kind.json", "learngenes.safetensors", "params.safetensors"} | tailors
    found = open_bundle(tmp_path / "art")
    chex.assert_trees_all_equal(found.collections, composed.bundle.collections)
    for field in ("config", "groups", "composition"):
        assert getattr(found, field) == getattr(composed.bundle, field)
    assert found.sample(np.array(classes, np.int32), seed=0).shape == (len(classes), 8, 8, 1)
    with pytest.raises(
        UserError, match=r"class is 2, but its tailors are not loaded" if len(classes) == 2 else "class is 0, but"
    ):
        found.sample(np.array([2 if len(classes) == 2 else 0], np.int32), seed=0)
    other = 2 if len(classes) == 2 else 4
    with pytest.raises(UserError, match="has no tailors of class"):
        open_bundle(tmp_path / "art", classes=(other,))
    assert picture.composition_bars(composed.record)[1:4] == b"PNG"
    # What was composed can be composed again.
    again = compose(found, classes=classes[:1])
    assert distance(again.bundle, classes[:1], found) < 1e-5


def test_guidance_of_a_folded_model():
    guided = tiny.change(CONFIG, sampler={"guidance": 2.0})
    bare = compose(bundle_of(tiny.change(guided, model={"label_embedding": False})), classes=(3,)).bundle
    assert bare.config.sampler.guidance == 1.0
    with pytest.raises(UserError, match=r"sampler.guidance is 2.0, but it must be 1"):
        bare.sample(np.array([3]), seed=0, sampler=guided.sampler)
    with pytest.raises(UserError, match="folded into the weights and cannot be gated"):
        bare.sample(np.array([3]), seed=0, gate=learngenes_only())
    # With the embedding there is an unconditional branch; where it had the tailors on, it is the source's own.
    assert compose(bundle_of(guided), classes=(3,)).bundle.config.sampler.guidance == 1.0
    keep = bundle_of(tiny.change(guided, model={"null_gate": "keep"}))
    folded = compose(keep, classes=(3,)).bundle
    assert folded.config.sampler.guidance == 2.0
    labels = np.array([3, 2], np.int32)
    chex.assert_trees_all_close(folded.sample(labels, seed=0), keep.sample(labels, seed=0), atol=1e-4)


def test_a_dense_model_serves_every_class_from_its_artifact(tmp_path):
    dense = bundle_of(tiny.change(CONFIG, model={"factor": FactorConfig(projections=())}))
    export(dense, tmp_path / "dense")
    found = open_bundle(tmp_path / "dense")
    assert found.groups == (0, 1, 2)
    labels = np.arange(5, dtype=np.int32)
    chex.assert_trees_all_close(found.sample(labels, seed=0), dense.sample(labels, seed=0), atol=1e-6)
    # Its weights have no components as they are, but their decomposition has.
    whole = compose(dense, classes=(0, 2, 4)).after
    small = compose(dense, classes=(0, 2, 4), max_params=int(0.8 * whole.parameters))
    assert small.after.parameters <= 0.8 * whole.parameters
    assert not small.record.folded
    assert 0 < distance(small.bundle, (0, 2, 4), dense) < 0.2


def test_costs_by_hand():
    settings = CONFIG.model  # 4 tokens, width 16, MLP 64, 2 blocks
    parts = cost.costs(settings)
    assert parts["0/qkv"] == cost.Cost(parameters=16 * 48 + 48, flops=2 * 4 * 16 * 48)
    assert parts["1/mlp_out"] == cost.Cost(parameters=(7 + 3 * 3) * (64 + 16 + 1) + 16, flops=2 * 4 * 10 * (64 + 16))
    assert parts["0/adaln"].flops == 2 * 16 * 96
    assert parts["attention"].flops == 2 * (2 * 4 * 4 * 16) * 2
    assert parts["time_embed"].flops == 2 * (256 * 16 + 16 * 16)
    assert parts["label_embed"] == cost.Cost(parameters=6 * 16, flops=0)
    assert parts["final"].flops == 2 * (16 * 32 + 4 * 16 * 16)
    # DiT's paper counts multiply-adds: 118.6 G for XL/2, 5.6 G for B/4.
    for name, published in (("XL/2", 118.6), ("B/4", 5.6)):
        plain = dit(name, factor=FactorConfig(projections=()))
        assert abs(cost.total(plain).flops / 2e9 / published - 1) < 0.01
    assert round(cost.total(dit("XL/2", factor=FactorConfig(projections=()))).parameters / 1e6) == 675


def test_spending_waits_for_the_free_rest():
    """Five equal components, a dense kernel at the price of two: two buy all five."""
    one, cap = cost.Cost(parameters=10, flops=1), cost.Cost(parameters=20, flops=2)
    flat = Offer(scores=np.ones(5), each=one, cap=cap)
    steep = Offer(scores=np.array([2.4, 0.1]), each=one, cap=None)
    assert spend([flat, steep], cost.NOTHING, Budget(parameters=20, flops=None)) == [5, 0]
    assert spend([flat, steep], cost.NOTHING, Budget(parameters=19, flops=None)) == [0, 1]
    assert spend([flat, steep], cost.NOTHING, Budget(parameters=30, flops=None)) == [5, 1]
    assert spend([flat, steep], cost.NOTHING, Budget(parameters=10, flops=0)) == [0, 0]
