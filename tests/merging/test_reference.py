"""Whole merges as the public ZipIt code has made them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax.classifying import network
from kind_jax.merging import Model, Settings, apply, batchnorm, plan, table_of, zip_models
from kind_jax.merging.program import named_leaves
from kind_jax.merging.statistics import collect
from tests.merging.reference import RECORDED, RESNET, mlp, mlp_weights, resnet_images, resnet_weights

SETTINGS = {
    "zipit_a0.5_b1.0": Settings(alpha=0.5, beta=1.0, epsilon=1e-5),
    "zipit_a0.3_b0.125": Settings(epsilon=1e-5),
    "permute": Settings(method="permute", epsilon=1e-5),
    "identity": Settings(method="identity", epsilon=1e-5),
    "self_zipit": Settings(alpha=0.5, beta=1.0, epsilon=1e-5),
}


def zipped(function, models, x, settings, batch, measured=None):
    table = table_of(function, models[0], x[:1])
    nodes = range(len(table.nodes)) if measured is None else measured
    leaves = [table.split(model) for model in models]
    batches = [(x[i : i + batch],) for i in range(0, len(x), batch)]
    found = collect(table, leaves, batches, plan.wanted(table, nodes))
    made = plan.make(table, dict(zip(nodes, found, strict=True)), len(models), settings)
    return table, leaves, found, made


@pytest.mark.parametrize("case", ["zipit_a0.5_b1.0", "zipit_a0.3_b0.125", "permute", "identity", "self_zipit"])
def test_mlp(case):
    """Statistics, matches, weights and outputs of all methods."""
    a, x = mlp_weights("e2e/mlp/A"), RECORDED["e2e/mlp/x"]
    b = a if case.startswith("self") else mlp_weights("e2e/mlp/B")
    where = f"e2e/mlp/{case}"
    table, leaves, found, made = zipped(mlp, [a, b], x, SETTINGS[case], 16)
    for i, node in enumerate((2, 4)):
        np.testing.assert_allclose(found[i].covariance, RECORDED[f"{where}/node{node}/covariance"], atol=1e-5)
        merge = np.concatenate([pair.merge for pair in made.maps[i,]], axis=1)
        unmerge = np.concatenate([pair.unmerge for pair in made.maps[i,]], axis=0)
        np.testing.assert_allclose(2 * merge, RECORDED[f"{where}/node{node}/merge"], atol=1e-6)
        np.testing.assert_array_equal(unmerge, RECORDED[f"{where}/node{node}/unmerge"])
    merged = apply.merged(table, made.maps, leaves)
    for name, leaf in named_leaves(mlp_weights(f"{where}/merged")).items():
        np.testing.assert_allclose(merged[name], leaf, atol=1e-6)
    np.testing.assert_allclose(mlp(table.join(merged), x), RECORDED[f"{where}/out"], atol=1e-5)


def test_mlp_to_its_first_layer():
    """What is behind the last node stays each model's own."""
    x = RECORDED["e2e/mlp/x"]
    models = [mlp_weights(f"e2e/mlp/{name}") for name in "AB"]
    table, leaves, _, made = zipped(mlp, models, x, SETTINGS["zipit_a0.5_b1.0"], 16, measured=[0])
    shared = apply.merged(table, made.maps, leaves, only=lambda name: name.startswith("fc1"))
    for m in range(2):
        rest = apply.adapted(table, made.maps, leaves[m], m, only=lambda name: not name.startswith("fc1"))
        out = mlp(table.join({**shared, **rest}), x)
        np.testing.assert_allclose(out, RECORDED[f"e2e/mlp/zipit_stop2/out_head{m}"], atol=1e-5)


def images(batch=8):
    x = resnet_images()
    return [x[i : i + batch] for i in range(0, len(x), batch)]


def logits(model, x):
    gate = network.gate_of(model.config, jnp.zeros(len(x), jnp.int32))
    return np.asarray(
        network.logits(model.config, jax.tree.map(jnp.asarray, model.collections), jnp.asarray(x), gate)[0]
    )


@pytest.mark.parametrize(
    "case", ["zipit_a0.5_b1.0", *(pytest.param(name, marks=pytest.mark.slow) for name in ("permute", "identity"))]
)
def test_resnet(case, optimised):
    """Weights, outputs, and outputs after BatchNorm's statistics were found anew."""
    models = [Model(RESNET, resnet_weights(f"e2e/resnet/{name}")) for name in "AB"]
    found = zip_models(models, images(), to="all", settings=SETTINGS[case]).model
    for name, leaf in named_leaves(resnet_weights(f"e2e/resnet/{case}/merged")).items():
        np.testing.assert_allclose(named_leaves(found.collections)[name], leaf, atol=1e-6)
    np.testing.assert_allclose(logits(found, resnet_images()), RECORDED[f"e2e/resnet/{case}/out"], atol=1e-5)
    anew = dataclasses.replace(found, collections=batchnorm.reset(RESNET, found.collections, images()))
    np.testing.assert_allclose(logits(anew, resnet_images()), RECORDED[f"e2e/resnet/{case}/out_bnreset"], atol=1e-4)


def test_resnet_to_its_first_stage(optimised):
    """One trunk and two heads, whose statistics are found anew together."""
    models = [Model(RESNET, resnet_weights(f"e2e/resnet/{name}")) for name in "AB"]
    found = zip_models(models, images(), to=1, settings=SETTINGS["zipit_a0.5_b1.0"]).model
    anew = dataclasses.replace(found, collections=batchnorm.reset(found.config, found.collections, images()))
    for model, which in ((found, "out"), (anew, "out_bnreset")):
        recorded = [RECORDED[f"e2e/resnet/zipit_stop9/{which}_head{m}"] for m in range(2)]
        wanted = np.concatenate([np.asarray(jax.nn.log_softmax(each)) for each in recorded], axis=1)
        np.testing.assert_allclose(logits(model, resnet_images()), wanted, atol=1e-4 if model is anew else 1e-5)
