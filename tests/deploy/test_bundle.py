"""A model in hand: classes by name, gates in terms of classes, what is refused, and what is seen of it."""

import dataclasses
from pathlib import Path

import chex
import jax
import jaxtyping
import numpy as np
import pytest
import tiny

import kind_jax as kj

NAMES = ("zero", "one", "two", "3", "big, red")
CONFIG = tiny.change(
    tiny.CONFIG, model={"num_classes": 5, "groups": (0, 1, 2, 3, 3)}, sampler={"steps": 1, "guidance": 1.0}
)
BUNDLE = kj.Bundle(
    config=CONFIG,
    collections=jax.tree.map(np.asarray, tiny.weights(CONFIG.model, 0.3)),
    groups=(0, 1, 2, 3),
    class_names=NAMES,
    weights="ema",
    step=7,
    origin=Path("somewhere"),
)
DENSE = tiny.change(CONFIG, model={"factor": {"projections": ()}, "groups": None})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "art"
    kj.export(BUNDLE, str(folder))
    return folder


@pytest.fixture
def as_users_call(monkeypatch):
    """Without the checks of types that only tests have."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def test_classes_by_name_and_number_are_the_same(path):
    part = kj.open_bundle(str(path), classes=["two", 0])
    assert (part.groups, part.served) == ((0, 2), (0, 2))
    chex.assert_trees_all_equal(part.sample(["two", 0, 2], seed=0), BUNDLE.sample(np.array([2, 0, 2]), seed=0))
    assert kj.drop(BUNDLE, ["one", 2]).served == (0, 3, 4)
    assert kj.compose(BUNDLE, classes=["big, red"]).record.classes == (4,)
    assert kj.compose(BUNDLE, classes=["3"]).record.classes == (3,)


def weights_of(gate, bundle):
    """Weight of each group by its number, [samples, groups of the whole model]."""
    dense = np.zeros((gate.index.shape[0], CONFIG.model.num_groups))
    for i, (rows, weights) in enumerate(zip(np.asarray(gate.index), np.asarray(gate.weight), strict=True)):
        for row, weight in zip(rows, weights, strict=True):
            dense[i, bundle.groups[row]] += weight
    return dense.tolist()


def test_a_gate_speaks_of_classes_whatever_is_aboard(path):
    part = kj.open_bundle(path, classes=["two", "3"])
    for bundle in (BUNDLE, part):
        assert weights_of(bundle.gate([3, "two", None]), bundle) == [[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
        assert weights_of(bundle.gate({3: 0.5, "two": 0.25}), bundle) == [[0, 0, 0.25, 0.5]]
        mixed = bundle.gate([{"two": 0.5, 3: -1}, 2, {}])
        assert weights_of(mixed, bundle) == [[0, 0, 0.5, -1], [0, 0, 1, 0], [0, 0, 0, 0]]
        # Classes of one group: the tailors that they share are on by the sum of the weights.
        assert weights_of(bundle.gate({3: 0.5, 4: 0.25}), bundle) == [[0, 0, 0, 0.75]]
        assert weights_of(bundle.gate(np.array([2, 4])), bundle) == [[0, 0, 1, 0], [0, 0, 0, 1]]
    for gate in ({3: 0.5, "two": 0.5}, ["two", 3], [None, {3: 2.0}]):
        images = [b.sample([2, 3], seed=1, gate=b.gate(gate)) for b in (BUNDLE, part)]
        chex.assert_trees_all_close(*images, atol=1e-6)
        assert np.abs(images[0] - BUNDLE.sample([2, 3], seed=1)).max() > 1e-3 or gate == ["two", 3]
    chex.assert_trees_all_close(
        BUNDLE.sample([2, 3], seed=1, gate=BUNDLE.gate(["two", 3])), BUNDLE.sample([2, 3], seed=1), atol=1e-6
    )


def sample(**settings):
    return BUNDLE.sample(**{"labels": [0, 1], "seed": 0} | settings)


def overflowing():
    tree = jax.tree.map(np.array, BUNDLE.collections)
    tree["params"]["final"]["linear"]["kernel"][:] = 3e38
    return dataclasses.replace(BUNDLE, collections=tree)


REFUSED = {
    "criterion": (lambda: kj.compose(BUNDLE, classes=[3], criterion="foo"), "criterion is 'foo', but it must be"),
    "form": (lambda: kj.compose(BUNDLE, classes=[3], form="foo"), "form is 'foo', but it must be one of 'auto'"),
    "budget": (lambda: kj.compose(BUNDLE, classes=[3], max_params=1e5), "max_params is 100000.0, but it must be"),
    "rank": (lambda: kj.compose(BUNDLE, classes=[3], rank=True), "rank is True, but it must be a whole number"),
    "no classes": (lambda: kj.compose(BUNDLE, classes=[]), "classes is empty"),
    "one class": (lambda: kj.compose(BUNDLE, classes=3), r"classes is 3, but it must be a list .* like \[3, 7\]"),
    "one name": (lambda: kj.compose(BUNDLE, classes="3"), "classes is '3', but it must be a list"),
    "twice": (lambda: kj.compose(BUNDLE, classes=[4, "big, red"]), r"class 4 \(big, red\)"),
    "a path to compose": (lambda: kj.compose("art", classes=[3]), "bundle is 'art', but it must be a model"),
    "a path to drop from": (lambda: kj.drop("art", [3]), "bundle is 'art', but it must be a model"),
    "a path to grow": (lambda: kj.grow(BUNDLE, "art"), "other is 'art', but it must be a model"),
    "a path to export": (lambda: kj.export("art", "new"), "bundle is 'art', but it must be a model"),
    "no path": (lambda: kj.export(BUNDLE, 3), "directory is 3, but it must be the path of a folder"),
    "nothing to open": (lambda: kj.open_bundle(None), "path is None, but it must be the path"),
    "weights": (lambda: kj.open_bundle("x", weights="newest"), "weights is 'newest', but it must be one of 'ema', "),
    "fresh name": (lambda: kj.grow_fresh(BUNDLE, "cat", 0), "class_names is 'cat', but it must be a list of names"),
    "fresh names": (lambda: kj.grow_fresh(BUNDLE, [3], 0), r"class_names is \[3\], but it must be a list of names"),
    "fresh seed": (lambda: kj.grow_fresh(BUNDLE, ["cat"], -1), "seed is -1, but it must be a whole number"),
    "seed of weights": (lambda: kj.init(CONFIG.model, seed=-1), "seed is -1"),
    "negative seed": (lambda: sample(seed=-1), "seed is -1"),
    "large seed": (lambda: sample(seed=2**40), "seed is 1099511627776"),
    "half a seed": (lambda: sample(seed=0.5), "seed is 0.5"),
    "true seed": (lambda: sample(seed=True), "seed is True"),
    "float labels": (lambda: sample(labels=np.array([0.0, 1.0])), "labels is an array of float64 and shape"),
    "labels in a table": (lambda: sample(labels=np.zeros((2, 2), int)), r"labels is an array of .* shape \(2, 2\)"),
    "negative label": (lambda: sample(labels=np.array([0, -1])), "class is -1, but it must be between 0 and 4"),
    "no labels": (lambda: sample(labels=[]), "labels is empty"),
    "no list": (lambda: sample(labels=2), "labels is 2, but it must be a list"),
    "label beyond": (lambda: sample(labels=[5]), "class is 5, but it must be between 0 and 4"),
    "sampler": (lambda: sample(sampler="euler"), "sampler is 'euler', but it must be a SamplerConfig"),
    "another process": (
        lambda: sample(sampler=dataclasses.replace(CONFIG.sampler, method="ddpm")), "sampler.method is 'ddpm'"
    ),
    "no gate": (lambda: sample(gate=[3, 4]), r"gate is \[3, 4\], but it must be a Gate"),
    "long gate": (lambda: sample(gate=BUNDLE.gate([0, 1, 2])), "the gate is for 3 samples, but .* 2 labels"),
    "long mixture": (lambda: sample(gate=kj.mixture(np.ones((3, 4)))), "the gate is for 3 samples"),
    "rows beyond": (lambda: sample(gate=kj.one_group(np.array([0, 4]))), "rows beyond the 4 groups that are aboard"),
    "wide mixture": (lambda: sample(gate=kj.mixture(np.ones((2, 5)))), "rows beyond the 4 groups that are aboard"),
    "lopsided gate": (
        lambda: sample(gate=kj.Gate(np.zeros((2, 2), np.int32), np.ones((2, 1)))), "weight of the gate has shape"
    ),
    "NaN in a gate": (
        lambda: sample(gate=kj.Gate(np.zeros((1, 1), np.int32), np.array([[np.nan]]))), "NaN or infinite, but they must"
    ),
    "NaN in a mixture": (lambda: kj.mixture(np.full((2, 4), np.nan)), "NaN or infinite"),
    "too large for float32": (lambda: kj.mixture(np.full((2, 4), 1e39)), "NaN or infinite"),
    "flat mixture": (lambda: kj.mixture(np.ones(4)), r"weights of a gate: found float64 of shape \(4,\), but wanted"),
    "float rows": (lambda: kj.one_group(np.array([0.5])), "rows of a gate: found float64"),
    "NaN of all": (lambda: kj.all_groups(4, np.nan), "the weight of a gate: found values that are NaN"),
    "no groups": (lambda: kj.all_groups(0), "groups of a gate are 0, but they must be 1 or more"),
    "class beyond a gate": (lambda: BUNDLE.gate([5]), "class is 5, but it must be between 0 and 4"),
    "class not aboard": (lambda: kj.drop(BUNDLE, [1]).gate({"one": 1.0}), "class is 1, but its tailors are not loaded"),
    "unknown name": (lambda: BUNDLE.gate({"seven": 1.0}), "class is 'seven', but no class has this name"),
    "weight of a class": (lambda: BUNDLE.gate({3: np.nan}), "the weight of class 3 is nan, but it must be"),
    "true weight": (lambda: BUNDLE.gate({3: True}), "the weight of class 3 is True"),
    "class twice": (lambda: BUNDLE.gate({"one": 0.5, 1: 0.5}), "names class 1 .one. twice"),
    "nobody": (lambda: BUNDLE.gate([]), "are empty, but there must be an entry for each sample"),
    "a class alone": (lambda: BUNDLE.gate(3), "the classes of a gate are 3, but they must be a list"),
    "a nested list": (lambda: BUNDLE.gate([[3]]), r"class is \[3\], but it must be the number or the name"),
    "folded": (lambda: kj.compose(BUNDLE, classes=[3]).bundle.gate([3]), "the tailors are folded into the weights"),
    "dense": (
        lambda: dataclasses.replace(BUNDLE, config=DENSE, collections=kj.init(DENSE.model, 0)).gate([3]),
        "has no tailors",
    ),
    "overflow": (
        lambda: overflowing().sample([0, 1], seed=0),
        r"NaN or infinite in 2 of 2 images although .* the largest weight is 3e\+38, in params/final/linear/kernel",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_python_refuses_what_the_command_line_refuses(case, as_users_call):
    call, message = REFUSED[case]
    with pytest.raises(kj.UserError, match=message) as e:
        call()
    assert str(e.value).endswith(".")
    assert len(str(e.value)) < 600


def test_a_damaged_weight_in_hand_is_named():
    tree = jax.tree.map(np.array, BUNDLE.collections)
    tree["learngenes"]["blocks"]["mlp_out"]["s"][0, 1] = np.nan
    with pytest.raises(kj.UserError, match="the weight 'learngenes/blocks/mlp_out/s' has 1 of 12 values that are NaN"):
        dataclasses.replace(BUNDLE, collections=tree).sample([0], seed=0)


def test_a_model_is_seen_in_a_few_lines(path):
    text = repr(kj.open_bundle(path, classes=["3"]))
    assert len(text) < 500
    assert text.count("\n") == 2
    for part in (str(path), "step 7", "ema", "2 of 5 classes: 3 and 4 big, red", "learngenes", "tailors of 1 groups"):
        assert part in text
    composed = kj.compose(BUNDLE, classes=["one"], max_params=12_000)
    assert len(repr(composed)) < 900
    assert "1 of 5 classes: 1 one" in repr(composed)
    assert "max_params 12,000" in repr(composed)
    assert len(repr(composed.record)) < 500
    many = tiny.change(CONFIG, model={"num_classes": 1000, "groups": None})
    names = tuple(f"class {i}" for i in range(1000))
    wide = dataclasses.replace(BUNDLE, config=many, groups=tuple(range(1000)), class_names=names)
    assert len(repr(wide)) < 1000
