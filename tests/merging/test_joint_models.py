"""Merging generators: what is exact, what is averaged, what hidden units' orders change, and what is refused."""

import dataclasses
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from kind_jax import model
from kind_jax.deploy.bundle import Bundle, export, open_bundle
from kind_jax.deploy.components import product
from kind_jax.deploy.components import row as row_of
from kind_jax.deploy.compose import compose
from kind_jax.deploy.groups import grow
from kind_jax.deploy.weights import assemble
from kind_jax.errors import UserError
from kind_jax.merging import merge_record
from kind_jax.merging.agreement import agree
from kind_jax.merging.generators import merge, record
from kind_jax.merging.joint import joint
from kind_jax.merging.orders import reordered
from kind_jax.merging.sources import Composed, take
from kind_jax.nn.gate import learngenes_only

KIND = tiny.change(tiny.CONFIG, model={"num_classes": 3, "groups": (0, 1, 0)})
DENSE = tiny.change(tiny.CONFIG, model={"num_classes": 2, "factor": {"projections": ()}})
APART = tiny.change(KIND, model={"num_classes": 2, "groups": None, "factor": {"projections": ("q", "v", "adaln")}})
ALL = ("q", "k", "v", "o", "mlp_in", "mlp_out", "adaln")
TABLE = ("label_embed", "table")


def bundle_of(config, seed=0, prefix="a") -> Bundle:
    return Bundle(
        config=config, collections=jax.tree.map(np.asarray, tiny.weights(config.model, seed=seed)),
        groups=tuple(range(config.model.num_groups)),
        class_names=tuple(f"{prefix}{c}" for c in range(config.model.num_classes)), weights="ema", step=seed,
        origin=Path(prefix),
    )  # fmt: skip


def with_dense_of(bundle, other) -> Bundle:
    """``bundle`` with the other one's dense parameters, but its own kernels and rows of its classes."""

    def leaf(path, mine, theirs):
        keys = tuple(p.key for p in path)
        if keys == TABLE:
            return np.concatenate([mine[:-1], theirs[-1:]])
        return mine if keys[0] == "blocks" and keys[-1] == "kernel" else theirs

    theirs = jax.tree.map(np.asarray, other.collections["params"])
    flat = dict(jax.tree_util.tree_flatten_with_path(theirs)[0])
    params = jax.tree_util.tree_map_with_path(
        lambda path, mine: leaf(path, mine, flat.get(path, mine)), bundle.collections["params"]
    )
    return dataclasses.replace(bundle, collections={**bundle.collections, "params": params})


A = bundle_of(KIND)
B = with_dense_of(bundle_of(DENSE, 1, "b"), A)


@jax.jit(static_argnums=0)
def apply(settings, collections, x, labels, gate):
    return model.apply(settings, collections, x, jnp.full(len(x), 400.0), labels, gate)


def output(bundle, classes):
    labels, x = jnp.array(classes), jax.random.normal(jax.random.key(0), (len(classes), 8, 8, 1))
    gate = bundle.gates(labels, labels == bundle.config.model.num_classes)
    return apply(bundle.config.model, jax.device_put(bundle.collections), x, labels, gate)


def same(bundle, wanted, classes, others, atol=2e-5):
    chex.assert_trees_all_close(output(bundle, classes), output(wanted, others), atol=atol)


def test_at_full_rank_every_weight_is_reproduced_and_samples_agree(tmp_path):
    found = merge([A, B], learngenes="full", tailors=16, projections=("qkv", "o", "mlp_in", "mlp_out", "adaln"))
    merged = found.bundle
    assert merged.config.model.factor.ranks is None
    assert merged.config.model.groups == (0, 1, 0, 2, 2)
    assert merged.class_names == ("a0", "a1", "a2", "b0", "b1")
    sources = [take(each, separate=False) for each in (A, B, merged)]
    for name in sources[0].weights:
        for mine, theirs in zip(Composed(sources[2:], name), Composed(sources[:2], name), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert max(layer.error_max for layer in found.layers) < 1e-5
    assert not any(found.differences.values())
    same(merged, A, [0, 1, 2], [0, 1, 2])
    same(merged, B, [3, 4, 3], [0, 1, 0])
    export(merged, tmp_path / "merged")
    again = open_bundle(tmp_path / "merged")
    chex.assert_trees_all_close(again.sample(["b1", "b0"], seed=3), B.sample([1, 0], seed=3), atol=2e-4)
    same(compose(again, classes=["b1"]).bundle, B, [4, 4, 4], [1, 1, 1])


def test_a_fused_and_a_separate_attention_input():
    other = with_dense_of(bundle_of(APART, 2, "c"), bundle_of(tiny.change(APART, model={"num_classes": 3}), 0))
    first = with_dense_of(dataclasses.replace(A, class_names=("x", "y", "z")), other)
    assert merge([A, other], learngenes=4, tailors=2).bundle.config.model.factor.projections == (
        "q", "k", "v", "mlp_out", "adaln",
    )  # fmt: skip
    found = merge([first, other], learngenes="full", tailors=16, projections=ALL, align="none")
    biases = {name: d for name, d in found.differences.items() if d}
    assert all("attention" in name and name.endswith("bias") for name in biases)  # fused and apart: of other seeds
    sources = [take(each, separate=True) for each in (first, other, found.bundle)]
    for name in sources[0].weights:
        for mine, theirs in zip(Composed(sources[2:], name), Composed(sources[:2], name), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_one_model_with_its_own_ranks_loses_nothing():
    source = take(A, separate=False)
    for name in ("0/qkv", "1/mlp_out"):
        found = joint(
            Composed([source], name), np.array(source.counts), learngenes=6, tailors=2,
            starts={"learngenes": source.always(name)},
        )  # fmt: skip
        assert max(found.errors / found.norms) < 1e-5


def test_models_with_the_same_shared_part_are_joined_exactly():
    third = bundle_of(tiny.change(KIND, model={"num_classes": 2, "groups": None}), 4, "d")
    relative = with_dense_of(
        dataclasses.replace(third, collections={**third.collections, "learngenes": A.collections["learngenes"]}), A
    )
    params = {**A.collections["params"], "label_embed": relative.collections["params"]["label_embed"]}
    relative = dataclasses.replace(relative, collections={**relative.collections, "params": params})
    found = merge([A, relative])
    assert (found.method, found.layers) == ("exact", ())
    chex.assert_trees_all_equal(found.bundle.collections, grow(A, relative).collections)
    assert found.after < sum(found.before)
    assert merge([A, relative], tailors=3, learngenes=6).method == "joint"
    assert record(found).differences == {}


def test_a_composed_model_brings_the_classes_that_it_serves():
    small, pair = compose(A, classes=[1]).bundle, compose(bundle_of(KIND, 5, "e"), classes=[0, 1, 2]).bundle
    found = merge([small, pair], learngenes="full", tailors=16)
    assert found.bundle.class_names == ("a1", "e0", "e1", "e2")
    assert found.bundle.config.model.groups == (0, 1, 2, 1)
    assert max(layer.error_max for layer in found.layers) < 1e-5
    assert found.before[0] < found.before[1]


def test_what_cannot_be_of_a_class_is_averaged():
    other = bundle_of(DENSE, 1, "b")
    found = merge([A, other], learngenes=6, tailors=2, align="none")

    def mean(leaf):
        return 0.6 * leaf(A) + 0.4 * leaf(other)

    params = found.bundle.collections["params"]
    for read in (
        lambda b: b.collections["params"]["final"]["linear"]["kernel"],
        lambda b: b.collections["params"]["blocks"]["mlp_in"]["kernel"],
        lambda b: b.collections["params"]["blocks"]["attention"]["qkv"]["bias"],
        lambda b: b.collections["params"]["label_embed"]["table"][-1],
    ):
        chex.assert_trees_all_close(read(found.bundle), mean(read), atol=1e-6)
    table = [np.asarray(b.collections["params"]["label_embed"]["table"]) for b in (A, other)]
    np.testing.assert_array_equal(params["label_embed"]["table"][:-1], np.concatenate([t[:-1] for t in table]))
    assert found.differences["final/linear/kernel"] > 0.1
    assert found.bundle.config.model.null_gate == A.config.model.null_gate
    assert merge([other, bundle_of(DENSE, 2, "f")], learngenes=4, tailors=1).bundle.config.model.null_gate == "keep"


def test_averages_for_comparison():
    other = bundle_of(KIND, 1, "b")
    found = merge([A, other], method="average", learngenes="full", align="none")
    rows = [(A, 0), (A, 1), (other, 0), (other, 1)]
    for group, (bundle, row) in enumerate(rows):
        for name, weight in take(bundle, separate=False).weights.items():
            if weight.own is not None:
                kept = take(found.bundle, separate=False).weights[name].own
                np.testing.assert_allclose(product(row_of(kept, group)), product(row_of(weight.own, row)), atol=1e-5)
    dense = merge([B, bundle_of(DENSE, 3, "g")], method="average")
    assert dense.bundle.config.model.factor.projections == ()
    assert dense.layers == ()
    pairs = zip(merge([A, other]).layers, merge([A, other], method="average").layers, strict=True)  # aligned alike
    assert all(joined.energy >= averaged.energy - 1e-6 for joined, averaged in pairs)


SOURCES = {
    "kind": A,
    "dense": B,
    "apart": bundle_of(APART, 2, "c"),
    "composed": compose(A, classes=[0, 1], rank=5).bundle,
}


def orders_of(config, rng):
    heads, each = config.heads, config.width // config.heads

    def features(heads_in_order):
        return np.concatenate([each * h + rng.permutation(each) for h in heads_in_order])

    found = {"condition": rng.permutation(config.width), "time": rng.permutation(config.width)}
    for block in range(config.depth):
        order = rng.permutation(heads)
        found |= {f"{block}/qk": features(order), f"{block}/vo": features(order)}
        found[f"{block}/mlp"] = rng.permutation(config.projection_sizes["mlp_in"][1])
    return found


def permuted(bundle, orders):
    moved = reordered(bundle.config.model, bundle.collections, orders)
    return dataclasses.replace(bundle, collections=jax.tree.map(jnp.asarray, moved))


@pytest.mark.parametrize("name", SOURCES)
def test_the_order_of_hidden_units_changes_nothing_and_is_found_again(name):
    bundle = SOURCES[name]
    orders = orders_of(bundle.config.model, np.random.default_rng(7))
    other = permuted(bundle, orders)
    chex.assert_trees_all_equal_shapes(other.collections, bundle.collections)
    same(other, bundle, [0, 1, 0], [0, 1, 0])
    reference, moved = (take(b, separate=bundle.config.model.factor.separate) for b in (bundle, other))
    again = reordered(bundle.config.model, other.collections, agree(reference, moved))
    chex.assert_trees_all_equal(again, jax.tree.map(np.asarray, bundle.collections))


def test_alignment_brings_back_what_an_order_hid():
    other = dataclasses.replace(
        permuted(A, orders_of(KIND.model, np.random.default_rng(8))), class_names=("x", "y", "z")
    )
    hidden, seen = (merge([A, other], learngenes=6, tailors=2, align=align) for align in ("none", "weights"))
    assert max(layer.error for layer in seen.layers) < 1e-5
    assert max(layer.error for layer in hidden.layers) > 0.05
    assert not any(seen.differences.values())


def test_a_mixture_is_a_sum_of_tailors_with_any_signs():
    merged = merge([A, bundle_of(KIND, 1, "b")], learngenes=6, tailors=3).bundle
    weights = {"a0": 1.0, "b1": -0.5, "a1": 0.25}
    source = take(merged, separate=False)
    rows = {0: 1.0, 3: -0.5, 1: 0.25}
    dense = []
    for name, weight in source.weights.items():
        kernel = source.always(name) + sum(
            x * (source.whole(name, row) - source.always(name)) for row, x in rows.items()
        )
        dense.append(dataclasses.replace(weight, kernel=kernel, shared=None, own=None))
    settings, collections = assemble(merged.config.model, dense, merged.collections["params"])
    x, labels = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.array([0, 4])
    wanted = apply(settings, jax.device_put(collections), x, labels, learngenes_only())
    found = apply(merged.config.model, jax.device_put(merged.collections), x, labels, merged.gate(weights))
    chex.assert_trees_all_close(found, wanted, atol=2e-5)
    assert merged.sample(["a0", "b1"], seed=0, gate=merged.gate(weights)).shape == (2, 8, 8, 1)


def test_the_record_is_sealed_and_strict(tmp_path):
    found = record(merge([A, B], learngenes=6, tailors=2))
    merge_record.write(tmp_path / "m.json", found)
    assert merge_record.read(tmp_path / "m.json") == found
    assert [m.classes for m in found.models] == [("a0", "a1", "a2"), ("b0", "b1")]
    assert found.bytes == 4 * found.parameters
    assert len(merge_record.rows(found.layers)) == len(found.layers) + 1
    (tmp_path / "m.json").write_bytes((tmp_path / "m.json").read_bytes().replace(b'"joint"', b'"exact"'))
    with pytest.raises(UserError, match="damaged"):
        merge_record.read(tmp_path / "m.json")


def broken():
    params = jax.tree.map(np.array, B.collections["params"])
    params["final"]["linear"]["kernel"][0, 0] = np.nan
    return dataclasses.replace(B, collections={**B.collections, "params": params})


def changed(**settings):
    return bundle_of(tiny.change(DENSE, **settings), 1, "b")


REFUSED = {
    "one model": ([A], {}, "number of models is 1"),
    "sizes": ([A, changed(model={"width": 24, "heads": 2})], {}, r"model.width of b is 24, but it must be 16"),
    "depth": ([A, changed(model={"depth": 3})], {}, r"model.depth of b is 3, but it must be 2"),
    "diffusion": (
        [A, changed(diffusion={"process": "gaussian"}, sampler={"method": "ddim"})], {}, "diffusion.process of b",
    ),
    "null gates": (
        [A, bundle_of(tiny.change(KIND, model={"null_gate": "mean"}), 1, "b")], {}, "model.null_gate of b is 'mean'",
    ),
    "class names": ([A, dataclasses.replace(B, class_names=("b0", "a1"))], {}, "class 'a1' is in a and in b"),
    "not finite": ([A, broken()], {}, "b: the weight 'params/final/linear/kernel'"),
    "no number": ([B, changed()], {"names": ("x", "y")}, "learngenes is not given"),
    "too many learngenes": ([A, B], {"learngenes": 17, "tailors": 1}, "learngenes is 17, but it must be at most 16"),
    "no tailors": ([A, B], {"learngenes": 2, "tailors": 0}, "tailors is 0"),
    "projections": ([A, B], {"projections": ("mlp",)}, "projections"),
    "none": ([A, B], {"projections": ()}, "projections is empty"),
    "qkv apart": ([A, bundle_of(APART, 2, "c")], {"projections": ("qkv",)}, "must be named apart"),
    "method": ([A, B], {"method": "best"}, "method is 'best'"),
    "align": ([A, B], {"align": "heads"}, "align is 'heads'"),
    "exact and ranks": ([A, B], {"method": "exact", "tailors": 2}, "method is 'exact'"),
    "not exact": ([A, bundle_of(KIND, 1, "b")], {"method": "exact"}, "the learngenes of b"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_refused_in_one_sentence(case):
    bundles, settings, said = REFUSED[case]
    settings = dict(settings)
    if names := settings.pop("names", None):
        bundles = [bundles[0], dataclasses.replace(bundles[1], class_names=names)]
    with pytest.raises(UserError, match=said) as caught:
        merge(bundles, **settings)
    assert "\n" not in str(caught.value)
