"""Classifiers of timm and torchvision: read, checked, written back; their logits, which are recorded."""

import dataclasses
from pathlib import Path

import chex
import classifier_states
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from classifier_states import CASES, filled, resnet, timm_vit, torchvision_vit

from kind_jax import model, partition
from kind_jax.config import FactorConfig
from kind_jax.config.networks import CNNConfig, ResNetConfig, ViTConfig
from kind_jax.config.networks import resnet as resnet_config
from kind_jax.config.networks import vit as vit_config
from kind_jax.errors import UserError
from kind_jax.interchange import resnet_state, timm, torchvision, vit_names
from kind_jax.interchange.layouts import shapes
from kind_jax.interchange.positions import resized
from kind_jax.interchange.state_dict import open_state_dict
from kind_jax.nn.gate import learngenes_only

PROGRAMS = {"timm": timm, "torchvision": torchvision}
REFERENCE = np.load(Path(__file__).parents[1] / "fixtures/classifiers_reference.npz")
TIMM, VISION = ("timm", timm_vit()), ("torchvision", torchvision_vit())
RESNET = ("torchvision", resnet(18, first=4))


def read(program, names, /, *, without=(), origin="x", more=None, **settings):
    """Random arrays, read; without some, or with others."""
    state = {name: a for name, a in filled(names).items() if name not in without} | (more or {})
    return PROGRAMS[program].read(state, origin=origin, **settings)


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].flags.c_contiguous) == (np.float32, True)
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("case", CASES)
def test_logits_are_theirs(optimised, case):
    program, names = CASES[case]
    size = classifier_states.size_of(case)
    config, collections = read(program, names, size=size)
    definition = model.definition(config)[0]

    @jax.jit
    def logits(collections, images):
        return partition.join(definition, collections)(images, learngenes_only())

    found = logits(collections, jnp.asarray(classifier_states.images(size)))
    error = np.max(np.abs(found - REFERENCE[case])) / np.max(np.abs(REFERENCE[case]))
    print(f"relative error {error:.1e}")
    assert error < 1e-5


@pytest.mark.parametrize(
    ("program", "names"),
    [*CASES.values(), ("timm", resnet(34, first=2, channels=3)), ("timm", timm_vit(channels=1, patch=2, side=3))],
)
def test_round_trips_are_exact(program, names):
    state = filled(names)
    config, collections = read(program, names)
    chex.assert_trees_all_equal_shapes_and_dtypes(collections, model.definition(config)[1])
    written = PROGRAMS[program].write(config, collections)
    same(written, state)
    again, back = PROGRAMS[program].read(written, origin="x")
    assert again == config
    chex.assert_trees_all_equal(back, collections)


def test_our_own_networks_survive():
    for config in (
        ViTConfig(size=6, patch=3, width=64, depth=3, heads=1, num_classes=4, mean=(0.5,) * 3, std=(0.5,) * 3),
        ResNetConfig(size=32, depth=18, width=1 / 16, mean=(0.1,) * 3, std=(0.2,) * 3),
    ):
        collections = model.init(config, 0)
        for program in (timm, torchvision):
            state = program.write(config, jax.tree.map(jnp.asarray, collections))
            again, back = program.read(state, size=config.size, mean=config.mean, std=config.std, origin="x")
            assert again == config
            chex.assert_trees_all_equal(back, collections)


@pytest.mark.parametrize("name", ["Ti/16", "S/16", "B/32", "L/16", "H/14"])
def test_published_sizes_follow_from_shapes(name):
    config = dataclasses.replace(vit_config(name), qkv_bias=True, norm_eps=1e-6)
    for program, names in (("timm", vit_names.TIMM), ("torchvision", vit_names.TORCHVISION)):
        found = shapes(vit_names.places(config, names), config)
        state = {name: np.broadcast_to(np.float32(0), shape) for name, shape in found.items()}
        small = dataclasses.replace(config, depth=1)  # that of one block, since arrays of others take memory
        kept = {name: a for name, a in state.items() if not any(f"{mark}{i}." in name for mark in ("blocks.", "layer_")
                                                                for i in range(1, 99))}  # fmt: skip
        read_back, _ = PROGRAMS[program].read(kept, origin="x", mean=None, std=None)
        assert dataclasses.replace(read_back, mean=None, std=None) == small
        assert len(state) == len(kept) + (config.depth - 1) * 12


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnets_follow_from_shapes(depth):
    config = resnet_config(depth)
    assert shapes(resnet_state.places(config), config) == resnet(depth, classes=1000)
    config, _ = read("torchvision", resnet(depth, first=4, classes=7))
    assert (config.depth, config.width, config.num_classes, config.size) == (depth, 1 / 16, 7, 224)
    assert (config.norm_eps, config.momentum, config.shortcut) == (1e-5, 0.1, "conv1")


def test_settings_that_shapes_do_not_tell():
    config, _ = read("timm", timm_vit(width=128, channels=2))
    assert (config.heads, config.mean, config.std) == (2, (0.5, 0.5), (0.5, 0.5))
    assert (config.size, config.mlp_ratio, config.norm_eps, config.qkv_bias) == (8, 1.0, 1e-6, True)
    config, _ = read("timm", timm_vit(width=96, qkv_bias=False, token=False), heads=4, mean=(0.1,) * 3, std=(0.2,) * 3)
    assert (config.heads, config.mean, config.std) == (4, (0.1,) * 3, (0.2,) * 3)
    assert (config.qkv_bias, config.pool) == (False, "mean")
    for program, names in (("timm", RESNET[1]), RESNET, VISION):
        config, _ = read(program, names)
        assert (config.mean, config.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert read("timm", RESNET[1], size=64)[0].size == 64


def test_older_names_of_torchvision():
    old = torchvision_vit(mlp=("linear_1", "linear_2"))
    renamed = {name.replace("linear_1", "0").replace("linear_2", "3"): a for name, a in filled(old).items()}
    same(torchvision.write(*read("torchvision", old)), renamed)
    twice = {"encoder.layers.encoder_layer_1.mlp.linear_2.bias": np.zeros(64, np.float32)}
    with pytest.raises(
        UserError, match=r"has the array '.*layer_1.mlp.3.bias' twice, but it must not .*linear_2.bias'"
    ):
        read("torchvision", torchvision_vit(), more=twice)


def test_counters_and_numbers_of_16_bits(tmp_path):
    counters = {f"{layer}.num_batches_tracked": np.array(3) for layer in ("bn1", "layer1.0.bn2")}
    wanted = read("timm", RESNET[1])
    chex.assert_trees_all_equal(read("timm", RESNET[1], more=counters), wanted)
    safetensors.numpy.save_file(filled(RESNET[1]) | counters, tmp_path / "a.safetensors")
    found = open_state_dict(tmp_path / "a.safetensors")
    assert found.keys() == RESNET[1].keys()
    chex.assert_trees_all_equal(timm.read(found, origin="x"), wanted)
    for dtype, off in ((np.float16, 1e-3), (ml_dtypes.bfloat16, 1e-2)):
        half = timm.read({name: a.astype(dtype) for name, a in filled(RESNET[1]).items()}, origin="x")[1]
        chex.assert_trees_all_equal_shapes_and_dtypes(half, wanted[1])
        chex.assert_trees_all_close(half, wanted[1], rtol=off, atol=1e-6)


def zeros(*shape):
    return np.zeros(shape, np.float32)


LAYER = "encoder.layers.encoder_layer_1."


@pytest.mark.parametrize(
    ("network", "more", "message"),
    [
        (TIMM, {"norm.bias": None}, r"lacks the array 'norm.bias' of shape \(64,\)"),
        (TIMM, {"blocks.1.mlp.fc2.weight": None}, r"lacks the array 'blocks.1.mlp.fc2.weight' of shape \(64, 128"),
        (TIMM, {"patch_embed.proj.bias": None}, r"lacks the array 'patch_embed.proj.bias' of shape \[width\]"),
        (TIMM, {"head.bias": None}, r"lacks the array 'head.bias' of shape \[classes\]"),
        (TIMM, {"blocks.0.ls1.gamma": zeros(64)}, "holds the array 'blocks.0.ls1.gamma', which this model"),
        (TIMM, {"blocks.7.norm1.bias": zeros(64)}, "lacks the array 'blocks.2.attn.proj.bias'"),
        (TIMM, {"bn.num_batches_tracked": zeros()}, "holds the array 'bn.num_batches_tracked'"),
        (TIMM, {"x\x1b[2J": zeros()}, r"holds the array 'x\\x1b\[2J', which"),
        (TIMM, {"blocks.1.mlp.fc1.weight": zeros(64, 128)}, r"'blocks.1.mlp.fc1.weight' has shape \(64, 128\), but "
         r"this model needs \(128, 64\)"),
        (TIMM, {"blocks.0.mlp.fc1.weight": zeros(64, 128)}, r"'blocks.0.mlp.fc1.weight' has shape \(64, 128\), but"),
        (TIMM, {"blocks.0.attn.qkv.weight": zeros(64, 192)}, r"has shape \(64, 192\), but .* needs \(192, 64\)"),
        (TIMM, {"head.weight": zeros(64, 5)}, r"'head.weight' has shape \(64, 5\), but this model needs \(5, 64\)"),
        (TIMM, {"patch_embed.proj.weight": zeros(4, 4, 3, 64)},
         r"'patch_embed.proj.weight' has shape \(4, 4, 3, 64\), but it must be \[width, channels, patch, patch\]"),
        (TIMM, {"patch_embed.proj.weight": zeros(64, 3, 0, 0)}, r"has shape \(64, 3, 0, 0\), but it must be \["),
        (TIMM, {"pos_embed": zeros(5, 64)}, r"'pos_embed' has shape \(5, 64\), but it must be \[1, tokens, width\]"),
        (TIMM, {"pos_embed": zeros(1, 4, 64)}, "'pos_embed' has 4 tokens, but they must form a square and one"),
        (TIMM, {"pos_embed": zeros(1, 1, 64)}, "'pos_embed' has 1 tokens, but they must form a square and one"),
        (TIMM, {"cls_token": None}, "'pos_embed' has 5 tokens, but they must form a square"),
        (TIMM, {"cls_token": zeros(64)}, r"'cls_token' has shape \(64,\), but this model needs \(1, 1, 64\)"),
        (TIMM, {"norm.bias": np.zeros(64)}, "'norm.bias' has dtype float64, but it must be one of float32"),
        (TIMM, {"norm.bias": np.zeros(64, int)}, "'norm.bias' has dtype int64, but it must be one of float32"),
        (TIMM, {"norm.bias": np.full(64, np.nan, np.float32)}, "'norm.bias' has numbers that are not finite"),
        (TIMM, {"fc_norm.weight": zeros(64)}, "has the array 'fc_norm.weight', but patches must be normalised"),
        (("timm", timm_vit(width=96)), {}, "--heads is not given, but it must be, since the width 96 of x.pt is"),
        (("timm", VISION[1]), {}, "has neither 'patch_embed.proj.weight' nor 'conv1.weight' and 'layer1.0"),
        (("torchvision", TIMM[1]), {}, "has neither 'conv_proj.weight' nor 'conv1.weight' and 'layer1.0"),
        (("torchvision", {}), {}, "has neither 'conv_proj.weight'"),
        (VISION, {"class_token": None}, r"lacks the array 'class_token' of shape \(1, 1, 64\)"),
        (VISION, {"encoder.pos_embedding": zeros(1, 4, 64)}, "has 4 tokens, but they must form a square"),
        (VISION, {f"{LAYER}self_attention.in_proj_bias": None}, "lacks the array .*in_proj_bias'"),
        (VISION, {f"{LAYER}mlp.0.weight": zeros(64, 128)}, r"needs \(128, 64\)"),
        (VISION, {"heads.pre_logits.bias": zeros(9)}, "holds the array 'heads.pre_logits.bias'"),
        (RESNET, {"bn1.running_var": None}, r"lacks the array 'bn1.running_var' of shape \(4,\)"),
        (RESNET, {"layer2.0.downsample.0.weight": None}, "lacks the array 'layer2.0.downsample.0.weight'"),
        (RESNET, {"layer1.0.conv1.bias": zeros(4)}, "holds the array 'layer1.0.conv1.bias', which this model"),
        (RESNET, {"layer2.0.conv1.weight": zeros(3, 3, 4, 8)}, r"has shape \(3, 3, 4, 8\), but .* \(8, 4, 3, 3"),
        (RESNET, {"conv1.weight": zeros(7, 7, 3, 4)}, r"has shape \(7, 7, 3, 4\), but it must be \[out, chan"),
        (RESNET, {"conv1.weight": zeros(4, 3, 3, 3)}, r"has shape \(4, 3, 3, 3\), but .* \(4, 3, 7, 7\)"),
        (RESNET, {"fc.weight": zeros(32, 5)}, r"'fc.weight' has shape \(32, 5\), but this model needs \(5, 32\)"),
        (RESNET, {"bn1.running_mean": np.zeros(4, int)}, "'bn1.running_mean' has dtype int64, but it must be"),
        (RESNET, {"layer4.2.conv1.weight": zeros(4)}, "has 2, 2, 2, 3 blocks of two convolutions in"),
        (("torchvision", resnet(18, first=4, channels=1)), {}, "--mean and --std are not given, but .* has 1 channels"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(network, more, message):
    gone = [name for name, a in more.items() if a is None]
    more = {name: a for name, a in more.items() if a is not None}
    with pytest.raises(UserError, match=message) as caught:
        read(*network, without=gone, more=more, origin="x.pt")
    assert "x.pt" in str(caught.value)
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (TIMM[1], {"size": 16}, "'pos_embed' is for images of 8 pixels, but --size is 16: --interpolate resizes it"),
        (TIMM[1], {"size": 10, "interpolate": True}, "model.patch is 4, but it must be a divisor of model.size"),
        (TIMM[1], {"heads": 5}, "model.heads is 5, but it must be a divisor of model.width"),
        (TIMM[1], {"mean": (0.5,) * 3}, "model.std is None, but it must be given where model.mean is"),
        (TIMM[1], {"mean": (0.5,), "std": (0.5,)}, "one finite number for each of 3 channels"),
        (RESNET[1], {"size": 16}, "model.size is 16, but it must be 32 or more"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(names, settings, message):
    with pytest.raises(UserError, match=message):
        read("timm", names, **settings)


@pytest.mark.parametrize(("program", "names"), [TIMM, VISION])
def test_positions_for_another_size(program, names):
    plain = read(program, names)[1]["params"]
    config, collections = read(program, names, size=16, interpolate=True)
    found = collections["params"]
    assert (config.size, config.tokens) == (16, 17)
    chex.assert_trees_all_equal_shapes_and_dtypes(collections, model.definition(config)[1])
    np.testing.assert_array_equal(found["position"][0], plain["position"][0])
    assert not np.allclose(found["position"][1:].std(0), 0)
    for one in (found, plain):
        one.pop("position")
    chex.assert_trees_all_equal(found, plain)
    same_size = read(program, names, size=8, interpolate=True)
    chex.assert_trees_all_equal(same_size, read(program, names))


@pytest.mark.parametrize(("old", "new"), [(2, 5), (7, 3), (4, 4), (1, 3)])
def test_resizing_keeps_constants_and_tokens(old, new):
    rng = np.random.default_rng(0)
    token, constant = rng.standard_normal((2, 1, 6), np.float32)
    positions = np.concatenate([token, np.repeat(constant, old * old, 0)])
    found = resized(positions, new, tokens=1)
    assert found.shape == (1 + new * new, 6)
    np.testing.assert_array_equal(found[:1], token)
    np.testing.assert_allclose(found[1:], np.repeat(constant, new * new, 0), rtol=1e-6)
    np.testing.assert_allclose(resized(positions[1:], new, tokens=0), found[1:])


def test_resizing_keeps_rows_and_columns_apart():
    ramp = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij"), -1).reshape(64, 2).astype(np.float32)
    found = resized(ramp, 16, tokens=0).reshape(16, 16, 2)
    np.testing.assert_allclose(found[..., 0], found[..., 1].T, atol=1e-6)
    np.testing.assert_allclose(found[4:12, 8, 0], np.arange(1.75, 5.5, 0.5), atol=1e-6)  # away from borders


VIT = ViTConfig(size=8, width=64, heads=1, depth=1)
FACTORED = FactorConfig(projections=("o",))


@pytest.mark.parametrize(
    ("program", "config", "message"),
    [
        ("timm", dataclasses.replace(VIT, factor=FACTORED), r"model.factor.projections is \('o',\)"),
        ("timm", dataclasses.replace(VIT, groups=(0,) * 5 + (1,) * 5, gate="superclass",
                                     factor=FACTORED), "model.gate is 'superclass', but"),
        ("timm", dataclasses.replace(VIT, norm_eps=1e-5), "model.norm_eps is 1e-05, but it must be 1e-06, as timm's"),
        ("torchvision", dataclasses.replace(VIT, pool="mean"), "model.pool is 'mean', but it must be 'token' for"),
        ("torchvision", dataclasses.replace(VIT, qkv_bias=False), "model.qkv_bias is False, but it must be True for"),
        ("torchvision", ResNetConfig(depth=18, size=32, norm_eps=1e-3), "model.norm_eps is 0.001, but"),
        ("torchvision", ResNetConfig(depth=20), "model.depth is 20, but it must be 18, 34 or 50 for torchvision"),
        ("timm", ResNetConfig(depth=20, shortcut="pad"), "model.depth is 20, but it must be 18, 34 or 50 for timm"),
        ("timm", CNNConfig(), "model.network is 'cnn', but it must be 'vit' or 'resnet' for timm"),
        ("torchvision", CNNConfig(), "model.network is 'cnn', but it must be 'vit' or 'resnet' for torchvision"),
    ],
)  # fmt: skip
def test_what_they_have_no_form_for(program, config, message):
    with pytest.raises(UserError, match=message):
        PROGRAMS[program].write(config, {})


def test_weights_of_another_config_are_not_written():
    collections = model.init(VIT, 0)
    with pytest.raises(UserError, match=r"the model to be written: .* has shape .* but this model needs"):
        timm.write(dataclasses.replace(VIT, width=128, heads=2), collections)
