"""Dividing, replacing and assembling, as pure functions on collections."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from assembling import tiny_modules as tiny
from kind_jax import model, partition
from kind_jax.assembling import Module, assemble, cuts, divide, replace
from kind_jax.assembling.config import ModuleConfig, module_run
from kind_jax.classifying import network
from kind_jax.config.networks import CNNConfig, ViTConfig, resnet
from kind_jax.errors import UserError

MODULES = {name: divide(net, tiny.weights(net), depths) for name, (net, depths) in tiny.NETWORKS.items()}


@pytest.mark.parametrize("name", tiny.NETWORKS)
def test_every_leaf_is_in_one_module_and_assembling_is_the_inverse(name):
    net, depths = tiny.NETWORKS[name]
    collections = tiny.weights(net)
    modules = divide(net, collections, depths)
    counts = [sum(leaf.size for leaf in jax.tree.leaves(m.collections)) for m in modules]
    assert sum(counts) == sum(leaf.size for leaf in jax.tree.leaves(collections))
    assert [m.depth for m in modules] == list(depths)
    found = assemble(modules)
    assert found.network == net
    chex.assert_trees_all_equal(found.collections, collections)


def test_what_is_not_a_block_is_in_the_first_or_the_last():
    def outside(module):
        leaves = partition.flatten(module.collections["params"])
        return {path.split("/")[0] for path in leaves} - {"blocks"}

    assert [outside(m) for m in MODULES["vit"]] == [{"patch_embed", "class_token", "position"}, set(), {"norm", "head"}]
    first, last = (outside(m) for m in MODULES["dit"])
    assert (first >= {"patch_embed", "time_embed"}, last) == (True, {"final"})
    assert outside(MODULES["resnet"][0]) == {"stem", "norm", "stages"}
    assert outside(MODULES["resnet"][2]) == {"head", "stages"}
    assert all(m.collections["tailors"] for m in MODULES["kind"]), "each has tailors, and a gate that acts on them"


@pytest.mark.parametrize(("depths", "around"), [((3,), (3,)), ((1, 1, 1, 2), (1,) * 4), ((4, 1), (2, 1))])
def test_any_division(depths, around):
    net = cuts.resized(tiny.VIT, depths)
    collections = tiny.weights(net)
    modules = divide(net, collections, depths)
    chex.assert_trees_all_equal(assemble(modules).collections, collections)
    meta = divide(cuts.resized(net, around), tiny.weights(cuts.resized(net, around)), around)
    hybrid = replace(meta, modules[-1])
    assert hybrid.network.depth == sum(around[:-1]) + depths[-1]
    chex.assert_trees_all_equal_shapes(hybrid.collections, model.definition(hybrid.network)[1])


def test_a_hybrid_with_the_meta_models_own_module_is_the_meta_model():
    net, around = cuts.resized(tiny.VIT, (1, 1, 1)), (1, 1, 1)
    collections = tiny.weights(net)
    meta = divide(net, collections, around)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1)).astype(np.float32)

    def logits(settings, weights):
        gate = network.gate_of(settings, jax.numpy.zeros(4, int))
        return network.logits(settings, weights, jax.numpy.asarray(images), gate)[0]

    for module in meta:
        found = replace(meta, module)
        chex.assert_trees_all_equal(logits(*found), logits(net, collections))


def other(module, **changes):
    return dataclasses.replace(module, **changes)


def changed(module, **settings):
    return other(module, network=dataclasses.replace(module.network, **settings))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda a, b, c: [], r"^there are no modules"),
        (lambda a, b, c: [a, c], r"^module 1 of 3 is missing; there are 0, 2\.$"),
        (lambda a, b, c: [a, b, b], r"^module 1 is there twice \(module 1 and module 1\)"),
        (lambda a, b, c: [b, a, c], r"^the modules are given in the order 1, 0, 2, but they must be"),
        (lambda a, b, c: [a, other(b, source="1" * 64), c], r"^module 1 was trained in the meta model with SHA-256 1"),
        (lambda a, b, c: [a, changed(b, heads=1), c], r"^model\.heads of module 1 is 1, but that of module 0 is 2"),
        (lambda a, b, c: [a, changed(b, norm_eps=1e-5), c], r"^model\.norm_eps of module 1 is 1e-05"),
        (lambda a, b, c: [a, changed(b, qkv_bias=False), c], r"^model\.qkv_bias of module 1 is False"),
        (lambda a, b, c: [a, changed(b, num_classes=9), c], r"^model\.num_classes of module 1 is 9"),
        (lambda a, b, c: [a, changed(b, patch=8), c], r"^model\.patch of module 1 is 8"),
        (lambda a, b, c: [a, other(b, depths=(1, 2, 2)), c], r"^module 1 is of a network divided into \(1, 2, 2\)"),
        (
            lambda a, b, c: [a, other(b, depths=(2, 1, 3), network=dataclasses.replace(b.network, depth=6)), c],
            r"^module 1 is of a network divided into \(2, 1, 3\), but module 0 is of one divided into \(2, 1, 2\)",
        ),
        (lambda a, b, c: [a, other(b, collections=c.collections), c], r"^module 1: 'blocks/.*' has shape \(2, "),
        (lambda a, b, c: [a, b, other(c, collections=b.collections)], r"^module 2"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused(broken, sentence):
    with pytest.raises(UserError, match=sentence):
        assemble(broken(*MODULES["vit"]))


def test_more_than_ten_modules_have_an_order():
    net, depths = cuts.resized(tiny.VIT, (1,) * 12), (1,) * 12
    modules = divide(net, tiny.weights(net), depths)
    as_globbed = sorted(modules, key=lambda m: str(m.index))
    with pytest.raises(UserError, match=r"in the order 0, 1, 10, 11, 2"):
        assemble(as_globbed)


@pytest.mark.parametrize(
    ("settings", "depths", "sentence"),
    [
        (tiny.VIT, (2, 0, 3), r"^depths is \(2, 0, 3\), but it must be the number of blocks of each module, each 1"),
        (tiny.VIT, (), r"^depths is \(\)"),
        (tiny.VIT, (2, 2), r"^depths is \(2, 2\), but it must be numbers that add up to model\.depth, which is 5"),
        (
            tiny.RESNET,
            (2, 2),
            r"^depths is \(2, 2\), but it must be the blocks of the stages",
        ),
        (CNNConfig(size=8, channels=1), (1, 1), r"^a cnn cannot be divided into modules"),
    ],
)
def test_networks_that_cannot_be_cut_like_that(settings, depths, sentence):
    with pytest.raises(UserError, match=sentence):
        divide(settings, {}, depths)


def test_a_hybrid_of_strangers_is_refused():
    meta = divide(*(lambda net: (net, tiny.weights(net)))(cuts.resized(tiny.VIT, (1, 1, 1))), (1, 1, 1))
    module = MODULES["vit"][1]
    with pytest.raises(UserError, match=r"one of 2 modules, but the meta model has 3"):
        replace(meta, other(module, depths=(4, 1)))
    with pytest.raises(UserError, match=r"^model\.width of module 1 is 32, but that of module 0 is 16"):
        replace(meta, changed(module, width=32))
    with pytest.raises(UserError, match=r"is of a ResNetConfig, but module 0 is of a ViTConfig"):
        replace(meta, MODULES["resnet"][1])
    with pytest.raises(UserError, match=r"^module 1 of 3 is missing"):
        replace([meta[0], meta[2]], module)
    with pytest.raises(UserError, match=r"^module 1 holds the array 'class_token'"):
        replace([meta[0], other(meta[1], collections=meta[0].collections), meta[2]], module)
    with pytest.raises(UserError, match=r"^module 2 was trained in the meta model with SHA-256 1"):
        replace([*meta[:2], other(meta[2], source="1" * 64)], module)
    with pytest.raises(UserError, match=r"'blocks/.*' has shape"):
        replace(meta, other(module, collections=MODULES["vit"][0].collections))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"depths": (2, 0, 3)}, r"module\.depths is \(2, 0, 3\)"),
        ({"depths": (2, 3), "index": 2}, r"module\.index is 2, but it must be between 0 and 1"),
        ({"depths": (2, 3), "meta_depths": (1, 1, 1)}, r"module\.meta_depths is \(1, 1, 1\)"),
        ({"depths": (2, 2), "index": 0}, r"module\.depths is \(2, 2\), but it must be numbers that add up to"),
        ({"depths": (2, 3), "index": 0, "source": "abc"}, r"module\.source is 'abc'"),
    ],
)
def test_impossible_settings_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        module_run(tiny.whole("vit"), ModuleConfig(**settings))


def test_sizes_of_published_networks():
    """ViT-H in four modules of eight blocks: the parts of dma.md's partition, from shapes alone."""
    from kind_jax.assembling.modules import shapes
    from kind_jax.config.networks import vit

    net = vit("H/14")
    parts = [shapes(net, (8,) * 4, k) for k in range(4)]
    counts = [sum(leaf.size for leaf in jax.tree.leaves(part)) for part in parts]
    assert sum(counts) == sum(leaf.size for leaf in jax.tree.leaves(model.definition(net)[1]))
    assert counts[1] == counts[2] < counts[0] < counts[3]


def test_a_resnet_with_other_stages():
    assert resnet(20, size=8, stages=(1, 1, 1)).blocks == (1, 1, 1)
    assert cuts.resized(resnet(20), (3, 3, 3)) == resnet(20)
    for wrong in ((1, 1), (1, 0, 1)):
        with pytest.raises(UserError, match=r"^model\.stages is .*, but it must be 3 numbers of blocks"):
            resnet(20, stages=wrong)


def test_what_is_no_module_at_all():
    whole = tiny.weights(tiny.VIT)
    with pytest.raises(UserError, match=r"^the model has the collection 'extra', but it must have"):
        divide(tiny.VIT, {**whole, "extra": {}}, (2, 3))
    broken = {**whole, "params": {**whole["params"], "class_token": np.full(16, np.nan, np.float32)}}
    with pytest.raises(UserError, match=r"^the model: the weight 'params/class_token' has 16 of 16"):
        divide(tiny.VIT, broken, (2, 3))
    for index in (3, -1):
        with pytest.raises(UserError, match=r"^the index of the module is .*, but it must be a whole"):
            other(MODULES["vit"][0], index=index)
    chex.assert_trees_all_equal(assemble(iter(MODULES["vit"])).collections, assemble(MODULES["vit"]).collections)


def test_a_module_says_what_it_is():
    assert repr(MODULES["vit"][1]) == "<Module 1 of 3: 1 blocks, 3,280 parameters>"
    assert isinstance(MODULES["vit"][0], Module)
    assert isinstance(MODULES["vit"][0].network, ViTConfig)
