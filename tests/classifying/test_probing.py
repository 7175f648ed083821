"""Where the head alone trains, the network before it stands still to the bit, its statistics too."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classifying import tiny_classifier as tiny
from kind_jax import partition
from kind_jax.classifying import cost
from kind_jax.classifying.config import AugmentConfig
from kind_jax.config import DataConfig
from kind_jax.config.training import CollectionConfig, OptimizerConfig, RuleConfig
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy.bundle import open_bundle
from kind_jax.tasks import task_of
from kind_jax.train import step
from kind_jax.train.loop import train

HEAD_ALONE = OptimizerConfig(learning_rate=0.01, params=CollectionConfig(freeze=True, thaw=("head",)))
BY_RULE = OptimizerConfig(learning_rate=0.01, rules=(RuleConfig(path=r"params/(?!head/).*", freeze=True),))


def run(model=tiny.RESNET, optimizer=HEAD_ALONE, **settings):
    return dataclasses.replace(tiny.run(model, **settings), optimizer=optimizer)


@pytest.mark.parametrize(
    "optimizer",
    [pytest.param(HEAD_ALONE, id="thaw"), pytest.param(BY_RULE, id="rule", marks=pytest.mark.slow)],
)
def test_nothing_but_the_head_moves(optimizer, tmp_path):
    config = run(optimizer=optimizer, steps=4)
    first = task_of(config).init()
    train(config, tmp_path / "run")
    for weights in ("raw", "ema", "best"):
        found = open_bundle(tmp_path / "run", weights=weights).collections
        chex.assert_trees_all_equal(found["stats"], first["stats"])
        body = {name: tree for name, tree in first["params"].items() if name != "head"}
        chex.assert_trees_all_equal({name: found["params"][name] for name in body}, body)
        for name, leaf in first["params"]["head"].items():
            assert np.any(np.asarray(found["params"]["head"][name]) != leaf)


@pytest.mark.slow
def test_statistics_move_where_more_than_the_head_trains(tmp_path):
    more = dataclasses.replace(HEAD_ALONE, params=CollectionConfig(freeze=True, thaw=("head", "stages/2")))
    config = run(optimizer=more, steps=1, sample_every=0, checkpoint_every=1)
    train(config, tmp_path / "run")
    found, first = open_bundle(tmp_path / "run", weights="raw").collections, task_of(config).init()
    assert any(
        np.any(a != b) for a, b in zip(jax.tree.leaves(found["stats"]), jax.tree.leaves(first["stats"]), strict=True)
    )
    assert task_of(config).whole_batch == "BatchNorm"


def test_a_probe_takes_micro_batches_and_costs_a_forward_pass():
    whole, parts = (task_of(run(accumulate=n)) for n in (1, 4))
    assert parts.whole_batch is None
    collections = jax.tree.map(jnp.asarray, whole.init())
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (16, 8, 8, 1)).astype(np.float32))
    drawn = step.draw(whole, {"image": images, "label": jnp.arange(16) % 10}, jnp.int32(3))
    gradients = jax.jit(step.gradients, static_argnums=0)
    one, four = (gradients(task, collections, drawn, {})[0] for task in (whole, parts))
    assert {path.rpartition("/")[0] for path in partition.flatten(one)} == {"params/head"}
    chex.assert_trees_all_close(one, four, atol=1e-6)
    forward, head = cost.forward(tiny.RESNET), cost.head(tiny.RESNET)
    assert head == 2 * 16 * 10
    assert whole.flops() == 16 * (forward + head)
    assert task_of(tiny.run(tiny.RESNET)).flops() == 16 * 3 * forward


def test_features_that_stay_as_they_are_are_computed_once(tmp_path, capsys):
    """Of images that nothing alters; the losses are those of a probe that computes them in every step."""
    still = dataclasses.replace(run(), data=DataConfig(source="digits", validation=0.2), augment=AugmentConfig())
    dataset = open_dataset(still.data, "train")
    task = task_of(still).bound(dataset, begins=True)[0]
    columns = task.columns(dataset, task.init())
    assert columns["features"].shape == (len(dataset.source), 16)
    assert task_of(run()).bound(dataset, begins=True)[0].columns(dataset, {}) == {}
    batch = {name: jnp.asarray(a) for name, a in dataset.source.gather(np.arange(16)).items()}
    weights = jax.tree.map(jnp.asarray, task.init())
    loss = jax.jit(lambda batch: task.loss(weights, step.draw(task, batch, jnp.int32(0))))
    once = loss(batch | {"features": jnp.asarray(columns["features"][:16])})
    anew = loss(batch)
    np.testing.assert_allclose(once.value, anew.value, rtol=1e-5)
    capsys.readouterr()
    train(still, tmp_path / "run", stop_after=2)
    train(still, tmp_path / "run")
    assert capsys.readouterr().out.count("computing features once") == 2
