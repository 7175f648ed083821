"""Which optimizer moves which leaf, how far, and which not at all."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import kind_jax as kj
from kind_jax.config import CollectionConfig, OptimizerConfig
from kind_jax.config.training import RuleConfig
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import freeze, state
from kind_jax.train.optimizer import learning_rate, make_optimizer

RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.standard_normal(shape).astype(np.float32))


WEIGHTS = {"params": {"blocks": {"kernel": draw(2, 4, 6), "bias": draw(6)}, "head": {"kernel": draw(4, 3)}}}
GRADS = [jax.tree.map(lambda a: draw(*a.shape), WEIGHTS) for _ in range(3)]


def stepped(config, weights=WEIGHTS, grads=GRADS):
    tx = make_optimizer(config, learning_rate(config, 100))
    opt = tx.init(weights)
    for grad in grads:
        updates, opt = tx.update(grad, opt, weights, present=jnp.zeros(0, bool))
        weights = jax.tree.map(jnp.add, weights, updates)
    return weights


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_is_pytorchs(nesterov):
    """torch.optim.SGD: d = g + λ w; m = μ m + d; w -= lr (d + μ m) with Nesterov's momentum, else lr m."""
    decay = CollectionConfig(weight_decay=0.1)
    config = OptimizerConfig(method="sgd", learning_rate=0.05, momentum=0.8, nesterov=nesterov, params=decay)
    w, m = np.asarray(WEIGHTS["params"]["head"]["kernel"]), 0.0
    for grad in GRADS:
        d = np.asarray(grad["params"]["head"]["kernel"]) + 0.1 * w
        m = 0.8 * m + d
        w = w - 0.05 * (d + 0.8 * m if nesterov else m)
    chex.assert_trees_all_close(stepped(config)["params"]["head"]["kernel"], w, atol=1e-6)


def test_muon_makes_kernels_orthogonal_and_leaves_the_rest_to_adam():
    config = OptimizerConfig(method="muon", learning_rate=0.1, nesterov=False)
    grad = [GRADS[0]]
    moved = jax.tree.map(lambda a, b: np.asarray(b - a), WEIGHTS, stepped(config, grads=grad))["params"]
    for i, block in enumerate(moved["blocks"]["kernel"]):  # each block for itself
        u, _, v = np.linalg.svd(np.asarray(GRADS[0]["params"]["blocks"]["kernel"][i]), full_matrices=False)
        direction = -(u @ v)
        cosine = (block * direction).sum() / np.linalg.norm(block) / np.linalg.norm(direction)
        assert cosine > 0.97  # five iterations bring the singular values between 0.7 and 1.2
        assert 0.1 * 0.2 * 0.7 < np.sqrt((block**2).mean()) < 0.1 * 0.2 * 1.3
    adam = OptimizerConfig(learning_rate=0.1)
    theirs = jax.tree.map(lambda a, b: np.asarray(b - a), WEIGHTS, stepped(adam, grads=grad))["params"]
    chex.assert_trees_all_close(moved["head"], theirs["head"], atol=1e-6)
    chex.assert_trees_all_close(moved["blocks"]["bias"], theirs["blocks"]["bias"], atol=1e-6)


def test_muon_takes_both_factors_of_learngenes_and_leaves_tailors_to_lazy_adam():
    o = {"u": draw(2, 4, 3), "v": draw(2, 3, 6), "s": draw(2, 3)}
    weights = {"learngenes": {"blocks": {"o": o}}, "tailors": {"blocks": {"o": {"u_t": draw(3, 2, 4, 2)}}}}
    grad = jax.tree.map(lambda a: draw(*a.shape), weights)
    moved, adam = {}, {}
    for method, found in (("muon", moved), ("adamw", adam)):
        config = OptimizerConfig(method=method, learning_rate=0.1, nesterov=False)
        tx = make_optimizer(config, learning_rate(config, 100))
        present = jnp.asarray([True, False, True])
        found |= jax.tree.map(np.asarray, tx.update(grad, tx.init(weights), weights, present=present)[0])
    for name in ("u", "v"):
        for i, block in enumerate(moved["learngenes"]["blocks"]["o"][name]):
            u, _, v = np.linalg.svd(np.asarray(grad["learngenes"]["blocks"]["o"][name][i]), full_matrices=False)
            assert -(block * (u @ v)).sum() / np.linalg.norm(block) / np.linalg.norm(u @ v) > 0.97
    chex.assert_trees_all_equal(moved["tailors"], adam["tailors"])
    assert not moved["tailors"]["blocks"]["o"]["u_t"][1].any()
    chex.assert_trees_all_close(
        moved["learngenes"]["blocks"]["o"]["s"], adam["learngenes"]["blocks"]["o"]["s"], atol=1e-6
    )


def test_the_first_rule_that_matches_decides():
    rules = (
        RuleConfig(path="params/head/.*", learning_rate=0.0),
        RuleConfig(path=".*/kernel", weight_decay=1.0),
        RuleConfig(path="params/blocks/bias", freeze=True),
    )
    config = OptimizerConfig(method="sgd", learning_rate=0.1, momentum=0.0, nesterov=False, rules=rules)
    found, grad = stepped(config, grads=GRADS[:1])["params"], GRADS[0]["params"]
    old = WEIGHTS["params"]
    chex.assert_trees_all_equal(found["head"], old["head"])
    chex.assert_trees_all_equal(found["blocks"]["bias"], old["blocks"]["bias"])
    decayed = old["blocks"]["kernel"] - 0.1 * (grad["blocks"]["kernel"] + old["blocks"]["kernel"])
    chex.assert_trees_all_close(found["blocks"]["kernel"], decayed, atol=1e-6)
    assert "bias" not in freeze.moving(config, WEIGHTS)["params"]["blocks"]


def test_statistics_are_never_trained():
    weights = {**WEIGHTS, "stats": {"norm": {"mean": draw(4)}}}
    assert set(freeze.moving(OptimizerConfig(), weights)) == {"params"}


@pytest.mark.parametrize(
    ("config", "weights", "said"),
    [
        (OptimizerConfig(rules=(RuleConfig(path="params/none"),)), WEIGHTS, "must be the first to match a leaf"),
        (
            OptimizerConfig(rules=(RuleConfig(path=".*"), RuleConfig(path="params/head/.*"))),
            WEIGHTS,
            "rules before it match the same leaves",
        ),
        (OptimizerConfig(), {**WEIGHTS, "projections": {"a": draw(3)}}, "optimizer.rules has none for 'projections/a'"),
        (OptimizerConfig(method="sgd"), {**WEIGHTS, "tailors": {"a": draw(3, 2)}}, "lazy_tailors is True"),
    ],
    ids=["matches nothing", "matches too late", "leaves a leaf out", "lazy tailors"],
)
def test_rules_that_do_not_fit(config, weights, said):
    with pytest.raises(UserError, match=said):
        freeze.check(config, weights)


def test_a_rule_covers_a_collection_of_its_own():
    weights = {**WEIGHTS, "projections": {"a": draw(3)}}
    rules = (RuleConfig(path="projections/.*", learning_rate=0.5),)
    config = OptimizerConfig(method="sgd", learning_rate=0.1, momentum=0.0, nesterov=False, rules=rules)
    freeze.check(config, weights)
    grads = [{**GRADS[0], "projections": {"a": jnp.ones(3)}}]
    found = stepped(config, weights, grads)
    chex.assert_trees_all_close(found["projections"]["a"], weights["projections"]["a"] - 0.05, atol=1e-6)


def test_patterns_are_regular_expressions():
    with pytest.raises(UserError, match=r"optimizer.rules is '\(', but it must be a regular expression"):
        RuleConfig(path="(")


def test_a_run_without_an_average_has_none():
    config = tiny.change(tiny.CONFIG, train={"ema": None})
    assert state.abstract(task_of(config)).ema == {}


def test_a_kind_run_with_muon_resumes_exactly(tmp_path):
    config = tiny.change(tiny.CONFIG, optimizer={"method": "muon", "learning_rate": 2e-3}, train={"steps": 4})
    kj.fit(config, tmp_path / "whole")
    kj.fit(config, tmp_path / "halves", stop_after=2)
    kj.fit(config, tmp_path / "halves")
    whole, halves = (kj.open_bundle(tmp_path / name, weights="raw") for name in ("whole", "halves"))
    assert halves.step == 4
    chex.assert_trees_all_equal(halves.collections, whole.collections)
