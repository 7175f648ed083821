"""What the table says about a network is true: it computes the same in any other order, and is found again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax import model, partition
from kind_jax.classifying import network
from kind_jax.config import FactorConfig, ModelConfig
from kind_jax.config.networks import CNNConfig, EfficientNetConfig, ResNetConfig, ViTConfig, ZippedConfig
from kind_jax.errors import UserError
from kind_jax.merging import Model, Settings, apply, rotation, statistics, table_of, zip_models, zip_weights
from kind_jax.merging.maps import Maps
from kind_jax.merging.program import named_leaves
from kind_jax.nn.gate import one_group
from kind_jax.nn.inputs import seen

IMAGES = {"size": 8, "channels": 1, "num_classes": 5}
SMALL = {**IMAGES, "patch": 2, "width": 16, "depth": 2, "heads": 2}
VIT = ViTConfig(**SMALL)
RESNET = ResNetConfig(**IMAGES, stages=(1, 2, 1), width=0.25)
NETWORKS = {
    "vit": VIT,
    "vit without biases": ViTConfig(**SMALL, qkv_bias=False, pool="mean"),
    "kind vit": ViTConfig(
        **SMALL, gate="superclass", groups=(0, 0, 1, 1, 1),
        factor=FactorConfig(projections=("q", "k", "v", "mlp_in"), learngenes=8, tailors=2),
    ),
    "resnet": RESNET,
    "resnet, padded": ResNetConfig(**IMAGES, stages=(1, 1, 1), width=0.25, shortcut="pad"),
    "resnet, bottlenecks": ResNetConfig(size=32, channels=1, num_classes=5, depth=50, stages=(1, 1, 1, 1), width=0.125),
    "cnn": CNNConfig(**IMAGES),
    "efficientnet": EfficientNetConfig(size=32, channels=1, num_classes=5),
    "zipped": ZippedConfig(**{**IMAGES, "num_classes": 10}, of=VIT, to=1, classes=(5, 5)),
    "dit": ModelConfig(**SMALL, factor=FactorConfig(projections=()), label_embedding=True),
    "kind dit": ModelConfig(
        **SMALL, groups=(0, 0, 1, 1, 1),
        factor=FactorConfig(projections=("qkv", "o", "mlp_out"), learngenes=8, tailors=2),
    ),
}  # fmt: skip


def weights(config, seed=0):
    """Not those of a beginning, where scales are 1 and some weights 0."""
    rng = np.random.default_rng(seed)
    found = jax.tree.map(
        lambda leaf: np.asarray(leaf) + np.float32(0.1) * rng.standard_normal(leaf.shape).astype(np.float32),
        model.init(config, seed),
    )
    if "stats" in found:
        found["stats"] = jax.tree.map(lambda leaf: np.abs(leaf) + 0.1, found["stats"])
    return jax.tree.map(jnp.asarray, found)


def inputs(config, count=3, seed=0):
    x = np.random.default_rng(seed).standard_normal((count, config.size, config.size, config.channels))
    x = x.astype(np.float32)
    return (
        (x, np.linspace(1, 900, count, dtype=np.float32), np.arange(count) % 5)
        if isinstance(config, ModelConfig)
        else (x,)
    )


def function(config):
    def run(collections, images, *rest):
        net = partition.join(model.definition(config)[0], collections)
        if isinstance(config, ModelConfig):
            return net(images, *rest, one_group(jnp.zeros(len(images), jnp.int32)))
        gate = network.gate_of(config, jnp.zeros(len(images), jnp.int32))
        return net.logits(net.features(seen(config, images), gate))

    return run


def shuffled(table, leaves, rng, stream="permute"):
    """The network with the features of all nodes in another order, or its stream rotated."""

    def order(size):
        return np.eye(size, dtype=np.float32)[rng.permutation(size)]

    maps = {}
    for i, node in enumerate(table.nodes):
        if node.inside:
            heads = order(node.size)
            maps[i,] = (Maps(heads, heads.T),)
            for inside in node.inside:
                size = table.nodes[inside].size
                whole = np.kron(heads, np.eye(size, dtype=np.float32))
                within = np.zeros_like(whole)
                for h in range(node.size):
                    within[h * size : (h + 1) * size, h * size : (h + 1) * size] = order(size)
                maps[i, inside] = (Maps(within @ whole, (within @ whole).T),)
        elif node.heads is None:
            turn = stream == "orthogonal" and node.normed
            found = rotation.random(node.size, 1).astype(np.float32) if turn else order(node.size)
            maps[i,] = (Maps(found, found.T),)
    return apply.adapted(table, maps, leaves, 0)


SLOW = pytest.mark.slow
VARIANTS = ("vit without biases", "resnet, padded", "resnet, bottlenecks", "kind vit", "dit")


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW if name in VARIANTS else ()) for name in NETWORKS])
def test_any_order_computes_the_same(name, optimised):
    config = NETWORKS[name]
    run, first = function(config), weights(config)
    table = table_of(run, first, *inputs(config))
    assert set(table.axes) == set(table.split(first))
    other = table.join(shuffled(table, table.split(first), np.random.default_rng(0)))
    other = jax.tree.map(jnp.asarray, {**{c: {} for c in first}, **other})
    moved = sum(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (first, other)), strict=True))
    assert moved > len(jax.tree.leaves(first)) / 2
    want, got = (np.asarray(jax.jit(run)(each, *map(jnp.asarray, inputs(config)))) for each in (first, other))
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def logits(found, x):
    gate = network.gate_of(found.config, jnp.zeros(len(x), jnp.int32))
    return np.asarray(
        network.logits(found.config, jax.tree.map(jnp.asarray, found.collections), jnp.asarray(x), gate)[0]
    )


@pytest.mark.parametrize(
    ("name", "method"),
    [("vit", "zip"), ("cnn", "zip"), ("zipped", "zip"), ("resnet", "optimal")]
    + [
        pytest.param(*case, marks=SLOW)
        for case in (("vit without biases", "zip"), ("resnet", "zip"), ("vit", "permute"), ("resnet", "permute"))
    ],
)
def test_a_model_is_found_again_in_a_shuffled_copy(name, method, optimised):
    """With its heads, and its stream rotated or in another order; averaging weights does not find it."""
    config, collections = NETWORKS[name], weights(NETWORKS[name])
    streams = ["orthogonal", "permute"] if name in ("vit", "zipped") and method == "zip" else ["permute"]
    if name in ("vit", "zipped"):
        config, collections = rotation.folded(config, collections)
    x = inputs(config, 192, seed=1)[0]
    first = Model(config, collections)
    if name in ("vit", "zipped"):
        np.testing.assert_allclose(
            logits(first, x), logits(Model(NETWORKS[name], weights(NETWORKS[name])), x), atol=2e-5
        )
    table = table_of(function(config), collections, x)
    for stream in streams:
        turned = stream if name in ("vit", "zipped") else "permute"
        leaves = shuffled(table, table.split(collections), np.random.default_rng(2), turned)
        copy = Model(config, {**{c: {} for c in partition.COLLECTIONS}, **table.join(leaves)})
        want = logits(first, x)
        np.testing.assert_allclose(logits(copy, x), want, atol=1e-5 * np.abs(want).max())
        most = config.most_shared
        for to in {most, 1} if name in ("vit", "resnet") else {most}:
            settings = Settings(method=method, stream=stream)
            found = zip_models([first, copy], [x], to=to, settings=settings).model
            both = np.concatenate([np.asarray(jax.nn.log_softmax(want))] * 2, axis=1)
            np.testing.assert_allclose(logits(found, x), both, atol=1e-5 * np.abs(both).max())


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=SLOW) for name in ("kind dit", "dit")), "kind vit"])
def test_any_network_is_found_again(name, optimised):
    """Generators, and weights of learngenes and tailors, whose components too may be in another order."""
    config = NETWORKS[name]
    run, first, seen = function(config), weights(config), inputs(config, 96, seed=1)
    table = table_of(run, first, *seen)
    leaves = shuffled(table, table.split(first), np.random.default_rng(2))
    copy = jax.tree.map(jnp.asarray, {**{c: {} for c in first}, **table.join(leaves)})
    found = zip_weights(run, [first, copy], [seen], Settings(stream="permute"))[0]
    found = jax.tree.map(jnp.asarray, {**{c: {} for c in first}, **found})
    want, got = (np.asarray(jax.jit(run)(each, *map(jnp.asarray, seen))) for each in (first, found))
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_the_same_architecture_again_compiles_nothing(optimised):
    x, models = inputs(VIT, 96)[0], [Model(VIT, weights(VIT, seed)) for seed in (0, 1)]
    zip_models(models, [x], to=1, settings=Settings())
    before = statistics._of_batch._cache_size()
    zip_models(models[::-1], [x], to=1, settings=Settings(alpha=0.5))
    assert statistics._of_batch._cache_size() == before


@pytest.mark.slow
def test_averaging_weights_does_not_find_it(optimised):
    x = inputs(RESNET, 64)[0]
    first, table = Model(RESNET, weights(RESNET)), table_of(function(RESNET), weights(RESNET), x)
    leaves = shuffled(table, table.split(first.collections), np.random.default_rng(2))
    copy = Model(RESNET, {**{c: {} for c in partition.COLLECTIONS}, **table.join(leaves)})
    found = zip_models([first, copy], [x], to="all", settings=Settings(method="identity")).model
    assert np.abs(logits(found, x) - logits(first, x)).max() > 0.2 * np.abs(logits(first, x)).max()


def test_redundant_models_become_one_without_loss():
    """Two networks whose units all come twice: with merges within a model both fit into one (the paper's redundancy of
    one half), and without they do not."""
    rng = np.random.default_rng(0)

    def twice(seed):
        rng = np.random.default_rng(seed)
        w = {"fc1": rng.standard_normal((6, 8)), "fc2": rng.standard_normal((8, 8)), "fc3": rng.standard_normal((8, 3))}
        b = {"fc1": rng.standard_normal(8), "fc2": rng.standard_normal(8), "fc3": rng.standard_normal(3)}
        out = {}
        for name in w:
            kernel, bias = w[name], b[name]
            if name != "fc1":
                kernel = np.repeat(kernel, 2, axis=0) / 2
            if name != "fc3":
                kernel, bias = np.repeat(kernel, 2, axis=1), np.repeat(bias, 2)
            out[name] = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
        return out

    from kind_jax.merging import plan
    from tests.merging.reference import mlp
    from tests.merging.test_reference import zipped

    x, models = rng.standard_normal((512, 6)).astype(np.float32), [twice(1), twice(2)]
    errors = {}
    for beta in (1.0, 0.0):
        table, leaves, _, made = zipped(mlp, models, x, plan.Settings(alpha=0.5, beta=beta), 512)
        shared = apply.merged(table, made.maps, leaves, only=lambda name: not name.startswith("fc3"))
        errors[beta] = 0.0
        for m in range(2):
            rest = apply.adapted(table, made.maps, leaves[m], m, only=lambda name: name.startswith("fc3"))
            error = np.abs(mlp(table.join({**shared, **rest}), x) - mlp(models[m], x)).max()
            errors[beta] = max(errors[beta], float(error))
    assert errors[1.0] < 1e-4
    assert errors[0.0] > 0.1


def test_weights_that_no_rule_covers():
    def odd(weights, x):
        return jnp.sort(x @ weights["a"], axis=1) @ weights["b"]

    shapes = {"a": np.ones((4, 6), np.float32), "b": np.ones((6, 2), np.float32), "unused": np.ones(3, np.float32)}
    with pytest.raises(UserError, match="unused has no part in the network's outputs"):
        table_of(odd, shapes, np.ones((1, 4), np.float32))
    del shapes["unused"]
    with pytest.raises(UserError, match="operation 'sort', which no rule of merging is for"):
        table_of(odd, shapes, np.ones((1, 4), np.float32))
    table = table_of(lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"], shapes, np.ones((1, 4), np.float32))
    with pytest.raises(UserError, match="no rule says how to merge the weight c"):
        apply.merged(table, {}, [{**shapes, "c": np.ones(2)}] * 2)


def test_leaves_are_split_and_joined_again():
    table = table_of(function(VIT), weights(VIT), inputs(VIT)[0])
    leaves = table.split(weights(VIT))
    assert leaves["params/blocks/mlp_in/kernel[1]"].shape == (16, 64)
    again = named_leaves(table.join(leaves))
    for name, leaf in named_leaves(weights(VIT)).items():
        np.testing.assert_array_equal(again[name], leaf)


def test_the_stages_names(optimised):
    """Settings of a place that there is not, and of a merged network."""
    first = Model(RESNET, weights(RESNET))
    for to in (5, -1, "stage", True):
        with pytest.raises(UserError, match=r"to is .* but it must be a whole number from 0 to 4, or 'all'"):
            zip_models([first, first], [inputs(RESNET)[0]], to=to, settings=Settings())
    with pytest.raises(UserError, match=r"model.to is 3, but it must be between 0 and 1"):
        ZippedConfig(**{**IMAGES, "num_classes": 20}, of=NETWORKS["zipped"], to=3, classes=(10, 10))
    other = dataclasses.replace(RESNET, width=0.5)
    with pytest.raises(UserError, match=r"model.width is 0.25 in one model and 0.5 in another"):
        zip_models([first, Model(other, weights(other))], [inputs(RESNET)[0]], to=1, settings=Settings())
