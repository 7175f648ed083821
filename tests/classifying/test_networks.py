"""Networks that classify: published sizes, norms, stochastic depth, gates."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classifying import tiny_classifier as tiny
from kind_jax import model, partition
from kind_jax.classifying import network
from kind_jax.classifying.cost import forward
from kind_jax.config import change
from kind_jax.config.networks import resnet, vit
from kind_jax.errors import UserError
from kind_jax.nn import inputs
from kind_jax.nn.init import Initializer
from kind_jax.nn.norm import BatchNorm, LayerNorm
from kind_jax.nn.vit import ViT
from kind_jax.tasks import task_of
from kind_jax.train import state, step

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((4, 8, 8, 1)).astype(np.float32)


def placed(module):
    """A module whose weights are on the device, as they are in a step."""
    graphdef, collections = partition.split(module)
    return partition.join(graphdef, jax.tree.map(jnp.asarray, collections))


def weights_of(config):
    return jax.tree.map(jnp.asarray, model.init(config, 0))


def parameters(config):
    shapes = model.definition(config)[1]
    return sum(leaf.size for name, tree in shapes.items() if name != "stats" for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("config", "published"),
    [
        # timm's and torchvision's counts; ViT-H has no bias of qkv (3 x 1280 in each of 32 blocks fewer than timm's).
        (vit("Ti/16"), 5_717_416), (vit("S/16"), 22_050_664), (vit("B/16"), 86_567_656), (vit("L/16"), 304_326_632),
        (vit("H/14"), 632_045_800 - 32 * 3 * 1280), (resnet(18), 11_689_512), (resnet(34), 21_797_672),
        (resnet(50), 25_557_032),
        # He et al. 2016, table 6: 0.27M, 0.46M, 0.66M, 0.85M and 1.7M.
        (resnet(20, shortcut="pad"), 269_722), (resnet(32, shortcut="pad"), 464_154),
        (resnet(44, shortcut="pad"), 658_586), (resnet(56, shortcut="pad"), 853_018),
        (resnet(110, shortcut="pad"), 1_727_962),
    ],
)  # fmt: skip
def test_published_sizes(config, published):
    assert parameters(config) == published


def test_flops_of_published_networks():
    """Multiply-adds: 4.1 G of ResNet-50, 1.8 G of ResNet-18 (torchvision), 17.6 G of ViT-B/16 with attention."""
    assert forward(resnet(50)) / 2e9 == pytest.approx(4.09, abs=0.03)
    assert forward(resnet(18)) / 2e9 == pytest.approx(1.82, abs=0.02)
    assert forward(vit("B/16")) / 2e9 == pytest.approx(17.6, abs=0.1)


def test_batch_norm_follows_pytorchs_rules():
    norm = placed(BatchNorm(3, eps=1e-5, momentum=0.1, init=Initializer(0)))
    norm.scale[...], norm.bias[...] = jnp.asarray([1.0, 2.0, 0.5]), jnp.asarray([0.0, -1.0, 3.0])
    x = RNG.standard_normal((5, 2, 2, 3)).astype(np.float32) * 3 + 1
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    affine = lambda y: y * np.asarray([1.0, 2.0, 0.5]) + np.asarray([0.0, -1.0, 3.0])  # noqa: E731
    chex.assert_trees_all_close(norm(jnp.asarray(x), train=True), affine((x - mean) / np.sqrt(var + 1e-5)), atol=1e-5)
    chex.assert_trees_all_close(norm.mean[...], 0.1 * mean, atol=1e-6)
    chex.assert_trees_all_close(norm.var[...], 0.9 + 0.1 * var * 20 / 19, atol=1e-5)  # unbiased: 20 values a channel
    expected = affine((x - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var * 20 / 19 + 1e-5))
    chex.assert_trees_all_close(norm(jnp.asarray(x), train=False), expected, atol=1e-5)


def test_layer_norm():
    norm = placed(LayerNorm(6, eps=1e-6, init=Initializer(0)))
    x = RNG.standard_normal((2, 3, 6)).astype(np.float32) * 4 + 2
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    chex.assert_trees_all_close(norm(jnp.asarray(x)), expected, atol=1e-5)


@pytest.mark.parametrize("config", [tiny.VIT, tiny.RESNET, tiny.CNN], ids=["vit", "resnet", "cnn"])
def test_statistics_move_in_training_alone(config):
    weights = weights_of(config)
    gate = network.gate_of(config, jnp.zeros(4, jnp.int32))

    def logits(train):
        return jax.jit(lambda w: network.logits(config, w, jnp.asarray(IMAGES), gate, train=train))(weights)

    (found, still), (trained, moved) = logits(False), logits(True)
    assert found.shape == (4, 10)
    if "stats" not in weights:
        assert moved is None
        chex.assert_trees_all_equal(found, trained)
        return
    chex.assert_trees_all_equal(still, weights["stats"])
    changed = [bool((a != b).any()) for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(still), strict=True)]
    assert all(changed)
    # After training an image is classified for itself, whatever is beside it.
    alone = network.logits(config, weights, jnp.asarray(IMAGES[:1]), gate)[0]
    chex.assert_trees_all_close(alone, found[:1], atol=1e-5)


def test_dropped_branches_leave_the_shortcut():
    config = dataclasses.replace(tiny.VIT, drop_path=0.5)
    net, gate = placed(ViT(config, init=Initializer(0))), network.gate_of(config, jnp.zeros(4, jnp.int32))
    images = jnp.asarray(IMAGES)
    kept = net.features(images, gate, paths=jnp.ones((2, 4, 2)))
    chex.assert_trees_all_close(kept, net.features(images, gate), atol=1e-6)
    none = net.features(images, gate, paths=jnp.zeros((2, 4, 2)))
    token = net.norm(jnp.tile(net.class_token[...] + net.position[0], (4, 1)))  # nothing has reached it
    chex.assert_trees_all_close(none, token, atol=1e-6)


def test_mean_pooling_has_no_token():
    config = dataclasses.replace(tiny.VIT, pool="mean")
    assert "class_token" not in model.definition(config)[1]["params"]
    assert config.tokens == 4


def test_a_gate_switches_a_superclass_on():
    """Logits of a superclass do not depend on the tailors of another one, whose gradient is exactly zero."""
    config, weights = tiny.KIND, weights_of(tiny.KIND)
    superclass = jnp.asarray([0, 0, 0, 0])
    gate = network.gate_of(config, superclass)

    def total(tailors):
        found, _ = network.logits(
            config, {**weights, "tailors": tailors}, jnp.asarray(IMAGES), gate, superclass=superclass
        )
        return jnp.sum(jnp.where(jnp.isfinite(found), found, 0) ** 2)

    grads = jax.jit(jax.grad(total))(weights["tailors"])
    for path, leaf in partition.flatten(grads).items():
        assert np.abs(leaf[0]).max() > 0, path
        assert np.abs(leaf[1]).max() == 0, path
    found, _ = network.logits(config, weights, jnp.asarray(IMAGES), gate, superclass=superclass)
    assert np.isinf(np.asarray(found[:, 1::2])).all()  # classes of the other superclass do not compete
    assert np.isfinite(np.asarray(found[:, ::2])).all()


def test_images_are_normalised_as_the_network_is_used_to():
    config = dataclasses.replace(tiny.VIT, mean=(0.25,), std=(0.5,))
    chex.assert_trees_all_close(inputs.normalised(config, jnp.asarray(IMAGES)), ((IMAGES + 1) / 2 - 0.25) / 0.5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gate": "superclass"}, "model.gate is 'superclass'"),
        ({"groups": (0, 1) * 5}, "model.gate is 'none'"),
        ({"drop_path": 1.0}, "model.drop_path is 1.0"),
        ({"patch": 3}, "model.patch is 3"),
        ({"mean": (0.5,)}, "model.std is None"),
        ({"mean": (0.5, 0.5), "std": (1.0, 1.0)}, "one finite number for each of 1 channels"),
        ({"factor": dataclasses.replace(tiny.KIND.factor, projections=("adaln",))}, "of qkv, o, mlp_in, mlp_out"),
    ],
)
def test_impossible_settings(settings, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(tiny.VIT, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"depth": 21}, "model.depth is 21"), ({"depth": 18, "shortcut": "pad"}, "'conv1'"), ({"size": 2}, "model.size")],
)
def test_impossible_residual_networks(settings, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(tiny.RESNET, **settings)


def test_unknown_sizes():
    with pytest.raises(UserError, match="the model is 'XXL/16'"):
        vit("XXL/16")


@pytest.mark.parametrize("config", [tiny.VIT, dataclasses.replace(tiny.VIT, drop_path=0.2), tiny.KIND], ids=str)
def test_micro_batches_give_the_gradient_of_the_batch(config):
    """Where all samples share one gate, too, and where nothing is drawn for stochastic depth."""
    whole, parts = (task_of(tiny.run(config, accumulate=n)) for n in (1, 4))
    collections = jax.tree.map(jnp.asarray, whole.init())
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (16, 8, 8, 1)).astype(np.float32))
    drawn = step.draw(whole, {"image": images, "label": jnp.arange(16) % 10}, jnp.int32(3))
    gradients = jax.jit(step.gradients, static_argnums=0)
    one, four = (gradients(task, collections, drawn, {})[0] for task in (whole, parts))
    chex.assert_trees_all_close(one, four, atol=1e-6)


def test_a_class_grouped_step_is_the_mixed_one():
    """Cohorts go by classes, tailors by super-classes, and images are mixed across all."""
    images = RNG.uniform(-1, 1, (16, 8, 8, 1)).astype(np.float32)
    batch = {"image": images, "label": np.repeat([3, 7, 3, 1], 4).astype(np.int32)}

    def after(m):
        task = task_of(change(tiny.run(tiny.KIND), data={"per_class": m}))
        begun = jax.jit(state.start, static_argnums=0)(task, weights_of(task.config.model))
        return jax.jit(step.make_step(task))(begun, batch)

    (found, metrics), (expected, plain) = after(4), after(None)
    np.testing.assert_allclose(metrics["loss"], plain["loss"], rtol=1e-6)
    chex.assert_trees_all_close(found.collections, expected.collections, atol=2e-6)
