"""Images as a network sees them: in another resolution, grey ones in colour; heads on networks for other images."""

import dataclasses
import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classifying import tiny_classifier as tiny
from kind_jax import model
from kind_jax.classifying import start
from kind_jax.classifying.config import ClassifyRun
from kind_jax.classifying.cost import forward
from kind_jax.classifying.predict import classify
from kind_jax.config import DataConfig, from_json, to_json
from kind_jax.config.networks import ResNetConfig, ViTConfig
from kind_jax.deploy.bundle import Bundle, export, open_bundle
from kind_jax.errors import UserError
from kind_jax.nn import inputs
from kind_jax.tasks import task_of
from kind_jax.train.loop import train

IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1)).astype(np.float32)
RGB = ResNetConfig(size=16, channels=3, width=0.25, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
SHOWN = {"size": 8, "channels": 1, "resolution": 16, "colour": True}


def bundle(config):
    """An untrained classifier of digits."""
    return Bundle(
        config=ClassifyRun(model=config, data=DataConfig(source="folder", size=config.size)), groups=(0,), step=0,
        collections=model.init(config, 0), weights="raw", class_names=tuple("0123456789"), origin=Path("art"),
    )  # fmt: skip


def test_what_a_network_sees():
    config = dataclasses.replace(RGB, **SHOWN)
    assert (config.seen_size, config.seen_channels) == (16, 3)
    found = inputs.seen(config, jnp.asarray(IMAGES))
    larger = (jax.image.resize(IMAGES, (4, 16, 16, 1), "bilinear") + 1) / 2
    for channel, (mean, std) in enumerate(zip(RGB.mean, RGB.std, strict=True)):
        chex.assert_trees_all_close(found[..., channel], (larger[..., 0] - mean) / std, atol=1e-5)
    small = dataclasses.replace(tiny.VIT, resolution=2, patch=2)
    counts = jax.grad(lambda images: jnp.sum(inputs.seen(small, images)))(jnp.asarray(IMAGES))
    assert float(jnp.min(counts)) > 0  # with antialiasing: every pixel counts
    assert float(jnp.sum(counts)) == pytest.approx(4 * 2 * 2, rel=1e-5)
    images = jnp.asarray(IMAGES)
    assert inputs.seen(tiny.VIT, images) is images


@pytest.mark.parametrize("config", [tiny.VIT, tiny.RESNET, tiny.CNN], ids=["vit", "resnet", "cnn"])
def test_weights_and_costs_are_those_of_what_is_seen(config):
    shown = dataclasses.replace(config, resolution=16, colour=True)
    plain = dataclasses.replace(config, size=16, channels=3)
    assert model.definition(shown)[1] == model.definition(plain)[1]
    scaling = 2 * (8 * 8 * 16 + 8 * 16 * 16)
    assert forward(plain) <= forward(shown) <= forward(plain) + 2 * scaling


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"resolution": 0}, "model.resolution is 0, but it must be 1 or more"),
        ({"colour": True, "channels": 3}, "model.channels is 3, but it must be 1 where model.colour is True"),
        ({"colour": True, "mean": (0.5,), "std": (0.5,)}, "one finite number for each of 3 channels"),
        ({"resolution": 10}, "model.patch is 4, but it must be a divisor of model.resolution, which is 10"),
    ],
)
def test_impossible_views(settings, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(tiny.VIT, **settings)
    with pytest.raises(UserError, match=r"model\.resolution is 2, but it must be 4 or more"):
        dataclasses.replace(tiny.RESNET, resolution=2)


def test_a_config_saved_before_loads():
    saved = json.loads(to_json(tiny.run()))
    del saved["model"]["resolution"], saved["model"]["colour"]
    assert from_json(json.dumps(saved), "saved") == tiny.run()


def test_grey_images_are_classified_by_a_network_for_colour(tmp_path):
    """As an artifact, too: everything that classifies has the view from the config."""
    config = dataclasses.replace(RGB, **SHOWN)
    found = classify(bundle(config), IMAGES)
    larger = np.asarray(jax.image.resize(IMAGES, (4, 16, 16, 1), "bilinear"))
    wanted = classify(bundle(RGB), np.repeat(larger, 3, axis=-1))
    chex.assert_trees_all_close(found, wanted, atol=1e-5)
    export(bundle(config), tmp_path / "art")
    assert open_bundle(tmp_path / "art").config.model == config
    chex.assert_trees_all_close(classify(open_bundle(tmp_path / "art"), IMAGES), found, atol=1e-6)


def fresh(config, **settings):
    return dataclasses.replace(tiny.run(config, **settings), head="fresh")


@pytest.mark.slow
def test_a_fresh_head_on_other_images(tmp_path):
    export(bundle(RGB), tmp_path / "art")
    base = fresh(ResNetConfig(num_classes=10, **SHOWN))
    config = start.defaults(base, tmp_path / "art", tmp_path / "run")
    assert config.model == dataclasses.replace(RGB, **SHOWN)  # with the width and the moments of the source
    plain = fresh(ResNetConfig(size=28, channels=1))  # which says nothing of how images are seen
    assert start.defaults(plain, tmp_path / "art", tmp_path / "run").model == RGB
    with pytest.raises(UserError, match=r"sees 3 channels; model.colour shows images in grey in three channels"):
        start.defaults(fresh(ResNetConfig(size=8, channels=1, resolution=16)), tmp_path / "art", tmp_path / "run")
    config, initial = start.begin_run(config, tmp_path / "art", tmp_path / "run")
    weights = initial()
    chex.assert_trees_all_equal(weights["params"]["stages"], bundle(RGB).collections["params"]["stages"])
    assert train(config, tmp_path / "run", stop_after=2, initial=lambda: weights).step == 2
    assert task_of(config).batch()["image"].shape == (16, 8, 8, 1)


VIT = ViTConfig(size=16, channels=3, patch=4, width=16, depth=2, heads=2)


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    [
        (VIT, {**SHOWN, "resolution": None},
         r"model.size is 8, but the positions of the model that the run begins from are for images of 16 pixels: "
         r"model.resolution 16"),
        (VIT, {**SHOWN, "resolution": 20}, r"model.resolution is 20, but the positions of .* 16 pixels"),
        (VIT, {**SHOWN, "colour": False}, r"model.channels is 1, but .* sees 3 channels; model.colour shows images"),
        (tiny.VIT, {"channels": 3}, r"model.channels is 3, but the model that the run begins from sees 1 channels\.$"),
        (VIT, {"depth": 3}, r"model.depth is 3, but the model that the run begins from has 2"),
        (tiny.CNN, {"size": 64}, r"art: 'stem/kernel' has shape \(3, 3, 1, 32\), but this model needs \(7, 7, 1, 32\)"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(source, settings, said):
    with pytest.raises(UserError, match=said):
        start.begin(fresh(dataclasses.replace(source, **settings)), bundle(source))


def test_a_kept_head_needs_the_same_view():
    shown = dataclasses.replace(tiny.RESNET, resolution=16)
    with pytest.raises(UserError, match=r"model.resolution is 16, but the model that the run begins from has None"):
        start.begin(tiny.run(shown), bundle(tiny.RESNET))
