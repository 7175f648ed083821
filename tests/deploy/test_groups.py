"""Growing and shrinking: what stays is untouched, what joins behaves as it did, and what does not fit is refused."""

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
from kind_jax.deploy.compose import compose
from kind_jax.deploy.groups import drop, grow, grow_fresh, served
from kind_jax.errors import UserError
from kind_jax.partition import fingerprint

CONFIG = tiny.change(tiny.CONFIG, model={"num_classes": 5, "groups": (0, 0, 1, 1, 2)})


def bundle_of(config, seed=0, prefix="old") -> Bundle:
    return Bundle(
        config=config,
        collections=jax.tree.map(np.asarray, tiny.weights(config.model, seed=seed)),
        groups=tuple(range(config.model.num_groups)),
        class_names=tuple(f"{prefix} {c}" for c in range(config.model.num_classes)),
        weights="ema",
        step=7,
        origin=Path(prefix),
    )


OLD = bundle_of(CONFIG)


def relative(**settings) -> Bundle:
    """Another model on the same learngenes and dense parameters, with its own tailors and rows of its classes."""
    settings = {"num_classes": 3, "groups": (1, 0, 1)} | settings
    other = bundle_of(tiny.change(CONFIG, model=settings), seed=1, prefix="new")
    old, own = (b.collections["params"]["label_embed"]["table"] for b in (OLD, other))
    params = {**OLD.collections["params"], "label_embed": {"table": np.concatenate([own[:-1], old[-1:]])}}
    return dataclasses.replace(
        other, collections={**other.collections, "learngenes": OLD.collections["learngenes"], "params": params}
    )


NEW = relative()


@jax.jit(static_argnums=(0, 1))
def _apply(settings, gates, collections, x, t, labels):
    return model.apply(settings, collections, x, t, labels, gates(labels, labels == settings.num_classes))


def output(bundle, classes):
    labels, x = jnp.array(classes), jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    return _apply(bundle.config.model, bundle.gates, bundle.collections, x, jnp.full(3, 400.0), labels)


def test_growing_appends_and_touches_nothing():
    grown = grow(OLD, NEW)
    assert grown.config.model.num_classes == 8
    assert grown.config.model.groups == (0, 0, 1, 1, 2, 4, 3, 4)
    assert grown.groups == tuple(range(5))
    assert grown.class_names == (*OLD.class_names, *NEW.class_names)
    assert served(grown) == tuple(range(8))
    chex.assert_trees_all_equal(jax.tree.map(lambda a: a[:3], grown.collections["tailors"]), OLD.collections["tailors"])
    assert fingerprint(grown.collections["learngenes"]) == fingerprint(OLD.collections["learngenes"])
    chex.assert_trees_all_close(output(grown, [0, 3, 4]), output(OLD, [0, 3, 4]), atol=1e-6)
    chex.assert_trees_all_close(output(grown, [5, 6, 7]), output(NEW, [0, 1, 2]), atol=1e-6)
    # The unconditional branch is the old one's.
    chex.assert_trees_all_close(output(grown, [8, 8, 8]), output(OLD, [5, 5, 5]), atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"contraction": "folded"}, {"scan_unroll": 0, "remat": True}, {"dtype": "bfloat16"}], ids=str
)
def test_how_the_other_model_is_computed_does_not_matter(settings):
    grown = grow(OLD, relative(**settings))
    assert dataclasses.replace(grown.config.model, num_classes=5, groups=CONFIG.model.groups) == CONFIG.model
    chex.assert_trees_all_equal(grown.collections, grow(OLD, NEW).collections)


def test_a_grown_model_is_like_any_other(tmp_path):
    grown = grow(OLD, NEW)
    export(grown, tmp_path / "grown")
    found = open_bundle(tmp_path / "grown", classes=(6, 0))
    assert found.groups == (0, 3)
    labels = np.array([6, 0, 6], np.int32)
    chex.assert_trees_all_close(found.sample(labels, seed=0), grown.sample(labels, seed=0), atol=1e-5)
    chex.assert_trees_all_close(output(compose(grown, classes=(6,)).bundle, [6] * 3), output(NEW, [1] * 3), atol=1e-4)
    again = grow(grown, dataclasses.replace(NEW, class_names=("x", "y", "z")))
    chex.assert_trees_all_close(output(again, [8, 9, 10]), output(NEW, [0, 1, 2]), atol=1e-6)


def test_only_what_is_served_joins():
    part = drop(NEW, (1,))
    grown = grow(OLD, part)
    assert grown.class_names[5:] == ("new 0", "new 2")
    assert grown.config.model.groups[5:] == (3, 3)
    chex.assert_trees_all_close(output(grown, [5, 6, 6]), output(NEW, [0, 2, 2]), atol=1e-6)
    # Also where the old model has lost some: its numbers stay, and so do the new ones' behind them.
    small = grow(drop(OLD, (0, 1)), part)
    assert served(small) == (2, 3, 4, 5, 6)
    assert small.groups == (1, 2, 3)
    chex.assert_trees_all_close(output(small, [2, 4, 6]), output(grown, [2, 4, 6]), atol=1e-6)


def test_dropping_leaves_the_others_alone():
    left = drop(OLD, (2, 3))
    assert (left.groups, served(left), left.config) == ((0, 2), (0, 1, 4), OLD.config)
    kept = jax.tree.map(lambda a: a[np.array([0, 2])], OLD.collections["tailors"])
    chex.assert_trees_all_equal(left.collections["tailors"], kept)
    for name in ("learngenes", "params"):
        assert left.collections[name] is OLD.collections[name]
    with pytest.raises(UserError, match="class 2 is to be dropped, but it shares its tailors with class 3"):
        drop(OLD, (2,))
    with pytest.raises(UserError, match="class is 2, but its tailors are not loaded"):
        drop(left, (2, 3))
    with pytest.raises(UserError, match="at least one class must stay"):
        drop(OLD, range(5))


def test_fresh_groups_are_drawn_as_at_initialisation():
    plain = bundle_of(tiny.change(tiny.CONFIG, model={"num_classes": 3}))
    grown = grow_fresh(plain, ["cat", "dog"], seed=5)
    assert grown.config.model.groups is None  # still a group for each class
    assert grown.class_names[3:] == ("cat", "dog")
    fresh = model.init(dataclasses.replace(plain.config.model, num_classes=2), 5)
    chex.assert_trees_all_equal(jax.tree.map(lambda a: a[3:], grown.collections["tailors"]), fresh["tailors"])
    chex.assert_trees_all_equal(
        jax.tree.map(lambda a: a[:3], grown.collections["tailors"]), plain.collections["tailors"]
    )
    table = grown.collections["params"]["label_embed"]["table"]
    old = plain.collections["params"]["label_embed"]["table"]
    np.testing.assert_array_equal(table[[0, 1, 2, 5]], old)
    np.testing.assert_array_equal(table[3:5], fresh["params"]["label_embed"]["table"][:2])
    chex.assert_trees_all_equal_shapes(grown.collections, model.definition(grown.config.model)[1])
    chex.assert_trees_all_equal(grow_fresh(plain, ["cat", "dog"], seed=5).collections, grown.collections)
    with pytest.raises(UserError, match="named 'cat', but a class of that name exists already"):
        grow_fresh(grown, ["cat"], seed=0)
    with pytest.raises(UserError, match="named 'x', but"):
        grow_fresh(plain, ["x", "x"], seed=0)


def changed(bundle, collection, change) -> Bundle:
    tree = jax.tree.map(np.array, bundle.collections)
    change(tree[collection])
    return dataclasses.replace(bundle, collections=tree)


def test_strangers_are_refused():
    def nudge(tree):
        tree["blocks"]["mlp_out"]["s"][0, 0] += 1e-6

    stranger = changed(NEW, "learngenes", nudge)
    hashes = [fingerprint(b.collections["learngenes"]) for b in (stranger, OLD)]
    with pytest.raises(UserError, match=rf"learngenes of new have SHA-256 {hashes[0]}, but .* of old, {hashes[1]}"):
        grow(OLD, stranger)

    def shift(tree):
        tree["final"]["adaln"]["bias"][3] = 1.0
        tree["patch_embed"]["bias"][3] = 1.0

    with pytest.raises(UserError, match="the dense parameter 'final/adaln/bias' of new is not that of old"):
        grow(OLD, changed(NEW, "params", shift))
    with pytest.raises(UserError, match=r"model.factor.tailors of new is 3, but it must be 2, as in old"):
        grow(OLD, relative(factor={"tailors": 3}))
    with pytest.raises(UserError, match="named 'old 0'"):
        grow(OLD, OLD)
    with pytest.raises(UserError, match=r"diffusion.times of new is 'uniform'"):
        grow(OLD, dataclasses.replace(NEW, config=tiny.change(NEW.config, diffusion={"times": "uniform"})))
    for composed in (compose(OLD, classes=(4,)).bundle, compose(OLD, classes=(0, 4), rank=4).bundle):
        with pytest.raises(UserError, match="is a composed model, which cannot grow"):
            grow(composed, NEW)
        with pytest.raises(UserError, match="is a composed model, which cannot grow"):
            grow_fresh(composed, ["x"], seed=0)
    with pytest.raises(UserError, match="is a composed model, which cannot shrink"):
        drop(compose(OLD, classes=(4,)).bundle, (4,))
    gated = compose(OLD, classes=(0, 4), rank=7, criterion="energy").bundle
    assert gated.collections["tailors"]
    chex.assert_trees_all_close(output(drop(gated, (0, 1)), [4] * 3), output(gated, [4] * 3), atol=1e-6)


def test_a_fingerprint_sees_everything():
    tree = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}, "c": np.zeros(2, np.float32)}
    first = fingerprint(tree)
    assert first == fingerprint({"c": jnp.zeros(2), "a": {"b": jnp.arange(6.0).reshape(2, 3)}})
    others = [
        {**tree, "c": np.array([0, -0.0], np.float32)},
        {**tree, "c": np.zeros(2, np.int32)},
        {**tree, "d": np.zeros(0, np.float32)},
        {**tree, "a": {"b": tree["a"]["b"].reshape(3, 2)}},
        {**tree, "a": {"x": tree["a"]["b"]}},
    ]
    assert len({first, *map(fingerprint, others)}) == 6
