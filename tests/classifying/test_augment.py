"""What is done to the images of a batch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from kind_jax.classifying import augment
from kind_jax.classifying.config import AugmentConfig
from kind_jax.classifying.randaugment import _COLOURS, _GEOMETRIC, _motion, _warp, randaugment
from kind_jax.errors import UserError

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (64, 8, 8, 3)).astype(np.float32))
LABELS = jnp.arange(64, dtype=jnp.int32) % 10

# As in a step: compiled.
crop = jax.jit(augment.crop, static_argnums=(2, 3))
resized_crop = jax.jit(augment.resized_crop, static_argnums=2)
erase = jax.jit(augment.erase, static_argnums=2)
mix = jax.jit(augment.mix, static_argnums=0, static_argnames=("classes", "smoothing"))
rand_augmented = jax.jit(randaugment, static_argnums=(2, 3))
warp = jax.jit(_warp)


def test_crops_are_every_shift_equally_often():
    image = jnp.arange(1, 17, dtype=jnp.float32).reshape(1, 4, 4, 1)
    found = np.asarray(crop(jnp.repeat(image, 900, axis=0), KEY, 1, "zero"))
    padded = np.pad(np.asarray(image[0]), ((1, 1), (1, 1), (0, 0)))
    shifts = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    counts = [int((found == shift).all((1, 2, 3)).sum()) for shift in shifts]
    assert sum(counts) == 900
    assert min(counts) > 60


def test_borders():
    image = jnp.arange(1, 17, dtype=jnp.float32).reshape(1, 4, 4, 1)
    assert float(crop(jnp.repeat(image, 50, axis=0), KEY, 1, "zero").min()) == 0
    assert float(crop(jnp.repeat(image, 50, axis=0), KEY, 1, "edge").min()) == 1


def test_resized_pieces_have_the_area_that_they_should():
    """A piece of a ramp, scaled to the whole, is a ramp again, whose slope is the side of the piece."""
    line = (np.arange(64) + 0.5) / 64
    ramps = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).astype(np.float32)
    found = np.asarray(resized_crop(jnp.tile(jnp.asarray(ramps)[None], (300, 1, 1, 1)), KEY, (0.1, 0.5)))
    inner = slice(8, 56)  # away from borders, where the filter sees less
    down = np.diff(found[:, inner, inner, 0], axis=1).mean((1, 2)) * 64
    right = np.diff(found[:, inner, inner, 1], axis=2).mean((1, 2)) * 64
    assert np.abs(np.diff(found[:, inner, inner, 0], n=2, axis=1)).max() < 0.01
    area, ratio = down * right, right / down
    assert 0.09 < area.min() < 0.15
    assert 0.42 < area.max() < 0.52
    assert area.mean() == pytest.approx(0.3, abs=0.02)
    assert ratio.min() > 0.74
    assert ratio.max() < 1.36
    assert found.min() > -0.01
    assert found.max() < 1.01
    assert found[:, 0, 0].std() > 0.1  # the pieces lie in different places


def test_erased_rectangles_have_the_share_that_they_should():
    images = jnp.full((2000, 16, 16, 1), 5.0)
    gone = np.asarray(erase(images, KEY, 0.25) != 5.0)
    shares = gone.mean((1, 2, 3))
    assert (shares > 0).mean() == pytest.approx(0.25, abs=0.03)
    some = shares[shares > 0]
    assert some.min() > 0.005
    assert some.max() < 0.4
    assert some.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    for rectangle in gone[shares > 0][:20, :, :, 0]:
        rows, columns = np.flatnonzero(rectangle.any(1)), np.flatnonzero(rectangle.any(0))
        assert rectangle[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def mixed(seed=0, **settings):
    config = AugmentConfig(**settings)
    return mix(config, IMAGES, LABELS, jax.random.key(seed), classes=10, smoothing=0.1)


def test_mixup_blends_images_and_targets_alike():
    images, targets = mixed(mixup=1.0)
    hot = np.asarray(targets - 0.01)  # 0.1 / 10
    share = hot[0, 0] / 0.9  # of the image itself: its partner, the last, is of another class
    chex.assert_trees_all_close(images, share * IMAGES + (1 - share) * IMAGES[::-1], atol=1e-5)
    chex.assert_trees_all_close(jnp.sum(targets, axis=1), jnp.ones(64), atol=1e-5)


def test_cutmix_gives_each_class_its_share_of_the_pixels():
    for seed in range(5):
        images, targets = mixed(seed, cutmix=1.0)
        own = np.asarray((images == IMAGES).all(-1)).mean((1, 2))
        share = (np.asarray(targets)[0, 0] - 0.01) / 0.9
        assert own[0] == pytest.approx(share, abs=1e-5)
        assert (np.asarray((images == IMAGES) | (images == IMAGES[::-1]))).all()


def test_without_mixing_targets_are_smoothed_labels():
    images, targets = mixed()
    chex.assert_trees_all_equal(images, IMAGES)
    chex.assert_trees_all_close(targets, jax.nn.one_hot(LABELS, 10) * 0.9 + 0.01)


def test_soft_labels_are_not_mixed_again():
    soft = jnp.full((64, 10), 0.1)
    with pytest.raises(UserError, match=r"augment.mixup needs labels that are class numbers \[B\]"):
        augment.mix(AugmentConfig(mixup=0.2), IMAGES, soft, KEY, classes=10, smoothing=0.0)  # pyright: ignore


def test_randaugment_without_strength_moves_nothing():
    found = warp(IMAGES[0], _motion(jnp.asarray(0), jnp.asarray(0.0)))
    chex.assert_trees_all_close(found, IMAGES[0], atol=1e-5)


def test_the_operations_of_randaugment():
    """Each against what it says: a quarter of a turn, a shift by pixels, PIL's own equalize."""
    shift = np.asarray(warp(IMAGES[0], jnp.asarray([[1.0, 0, 0], [0, 1.0, 0.25]])))  # a quarter of half the image
    chex.assert_trees_all_close(shift[:, :7], np.asarray(IMAGES[0])[:, 1:], atol=1e-5)
    assert np.abs(shift[:, 7]).max() == 0
    turned = np.asarray(warp(IMAGES[0], jnp.asarray([[0.0, -1, 0], [1, 0.0, 0]])))
    assert any(np.allclose(turned, np.rot90(np.asarray(IMAGES[0]), k), atol=1e-5) for k in (1, 3))
    unit = (IMAGES[:4] + 1) / 2
    equalize = _COLOURS[1](unit, 0.9, jnp.ones((4, 1, 1, 1)))
    for image, found in zip(np.asarray(unit), np.asarray(equalize), strict=True):
        levels = np.round(image * 255).astype(np.uint8)
        chex.assert_trees_all_equal(
            np.round(found * 255).astype(np.uint8), np.asarray(ImageOps.equalize(Image.fromarray(levels)))
        )
    assert len(_COLOURS) + _GEOMETRIC == 15


STRONGER = 1 + 0.9 * 0.6
PILS = {
    0: lambda image: ImageOps.autocontrast(image),
    2: lambda image: ImageOps.invert(image),
    3: lambda image: ImageOps.posterize(image, 4 - int(0.6 * 4)),
    4: lambda image: ImageOps.solarize(image, 256 - int(0.6 * 256)),
    6: lambda image: ImageEnhance.Color(image).enhance(STRONGER),
    7: lambda image: ImageEnhance.Contrast(image).enhance(STRONGER),
    8: lambda image: ImageEnhance.Brightness(image).enhance(STRONGER),
    9: lambda image: ImageEnhance.Sharpness(image).enhance(STRONGER),
}


@pytest.mark.parametrize("which", list(PILS))
def test_colours_are_pils(which):
    """To two levels of 255: PIL rounds in between."""
    pixels = np.random.default_rng(1).integers(20, 200, (16, 16, 3)).astype(np.uint8)
    theirs = np.asarray(PILS[which](Image.fromarray(pixels))).astype(np.float32)
    ours = _COLOURS[which](jnp.asarray(pixels[None] / np.float32(255)), 0.6, jnp.ones((1, 1, 1, 1)))[0]
    assert np.abs(np.asarray(ours) * 255 - theirs).max() <= 2
    assert which == 0 or np.abs(theirs - pixels).max() > 5


def test_randaugment_stays_in_range_and_follows_its_key():
    a, b = rand_augmented(IMAGES, KEY, 2, 9.0), rand_augmented(IMAGES, KEY, 2, 9.0)
    chex.assert_trees_all_equal(a, b)
    assert float(jnp.abs(a).max()) <= 1
    assert np.asarray((a != IMAGES).any((1, 2, 3))).mean() > 0.8
    grey = rand_augmented(IMAGES[..., :1], KEY, 2, 9.0)
    assert np.isfinite(np.asarray(grey)).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"crop": -1}, "augment.crop is -1"),
        ({"resized_crop": (0.5, 0.2)}, "augment.resized_crop"),
        ({"randaugment": (0, 5.0)}, "augment.randaugment"),
        ({"mixup": -1.0}, "augment.mixup is -1.0"),
        ({"erase": 2.0}, "augment.erase is 2.0"),
    ],
)
def test_impossible_settings(settings, said):
    with pytest.raises(UserError, match=said):
        AugmentConfig(**settings)
