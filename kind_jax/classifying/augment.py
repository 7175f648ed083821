"""What is done to a training batch on the device. B: samples, H = W: image side, C: channels, K: classes.

Images are float32, nominally in [-1, 1]. Every function is a pure one of its key.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from kind_jax.classifying.config import AugmentConfig
from kind_jax.classifying.randaugment import randaugment
from kind_jax.losses import check_hard, soft_targets

Images = Float[Array, "B H W C"]

_BORDERS = {"zero": "constant", "edge": "edge", "reflect": "reflect"}
_RATIO = (3 / 4, 4 / 3)  # of the sides of a resized crop
_ERASED, _ERASED_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)


def augment(config: AugmentConfig, images: Images, key: PRNGKeyArray) -> Images:
    """Everything that is done to each image for itself, in the order of DeiT's recipe."""
    keys = jax.random.split(key, 3)
    if config.crop:
        images = crop(images, keys[0], config.crop, config.border)
    if config.resized_crop is not None:
        images = resized_crop(images, keys[0], config.resized_crop)
    if config.randaugment is not None:
        images = randaugment(images, keys[1], *config.randaugment)
    if config.erase:
        images = erase(images, keys[2], config.erase)
    return images


def crop(images: Images, key: PRNGKeyArray, reach: int, border: str) -> Images:
    """Shift each image by up to ``reach`` pixels in each direction, all shifts being equally likely."""
    mode, sides = _BORDERS[border], images.shape[1:]
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode=mode)
    starts = jax.random.randint(key, (len(images), 2), 0, 2 * reach + 1)

    def cut(image: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(image, (start[0], start[1], jnp.zeros_like(start[0])), sides)

    return jax.vmap(cut)(padded, starts)


def resized_crop(images: Images, key: PRNGKeyArray, area: tuple[float, float]) -> Images:
    """A random piece of each image, scaled to the whole with antialiasing (Szegedy et al. 2015)."""
    size = images.shape[1]
    keys = jax.random.split(key, 3)
    share = jax.random.uniform(keys[0], (len(images),), minval=area[0], maxval=area[1])
    low, high = map(math.log, _RATIO)
    ratio = jnp.exp(jax.random.uniform(keys[1], (len(images),), minval=low, maxval=high))
    root = jnp.sqrt(share)
    sides = jnp.clip(jnp.stack([root / jnp.sqrt(ratio), root * jnp.sqrt(ratio)], axis=1), 1 / size, 1.0)
    corner = jax.random.uniform(keys[2], (len(images), 2)) * (1 - sides)

    def cut(image: Array, side: Array, corner: Array) -> Array:
        scale = 1 / side
        return jax.image.scale_and_translate(
            image, image.shape, (0, 1), scale, -corner * size * scale, method="linear", antialias=True
        )

    return jax.vmap(cut)(images, sides, corner)


def erase(images: Images, key: PRNGKeyArray, probability: float) -> Images:
    """Replace a rectangle of some images by normal noise."""
    keys, count, size = jax.random.split(key, 5), len(images), images.shape[1]
    area = jax.random.uniform(keys[0], (count,), minval=_ERASED[0], maxval=_ERASED[1])
    low, high = map(math.log, _ERASED_RATIO)
    ratio = jnp.exp(jax.random.uniform(keys[1], (count,), minval=low, maxval=high))
    sides = jnp.stack([jnp.sqrt(area * ratio), jnp.sqrt(area / ratio)], axis=1)
    inside = _rectangles(jnp.minimum(sides, 1.0), jax.random.uniform(keys[2], (count, 2)), size)
    chosen = jax.random.bernoulli(keys[3], probability, (count,))
    noise = jax.random.normal(keys[4], images.shape)
    return jnp.where((inside & chosen[:, None, None])[..., None], noise, images)


def mix(
    config: AugmentConfig, images: Images, labels: Array, key: PRNGKeyArray, *, classes: int,
    smoothing: float,
) -> tuple[Images, Float[Array, "B K"]]:  # fmt: skip
    """Mix each image with that of the same place counted from the batch's end; soft targets follow.

    Args:
      labels: class numbers, int [B].

    Raises:
      UserError: the labels are soft already.
    """
    check_hard(labels, "augment.mixup" if config.mixup else "augment.cutmix" if config.cutmix else "the loss")
    targets = soft_targets(labels, classes, smoothing)
    if not config.mixup and not config.cutmix:
        return images, targets
    keys = jax.random.split(key, 4)
    either = jax.random.bernoulli(keys[0]) if config.mixup and config.cutmix else jnp.asarray(bool(config.cutmix))
    share = jnp.where(either, _beta(keys[1], config.cutmix), _beta(keys[2], config.mixup))
    others = images[::-1]
    # A box with the area 1 - share of the image around a random centre; cut off at the border, it decides the share.
    size = images.shape[1]
    side = jnp.sqrt(1 - share)
    box = _box(side, jax.random.uniform(keys[3], (2,)), size)
    pasted = jnp.where(box[None, :, :, None], others, images)
    share = jnp.where(either, 1 - jnp.mean(box.astype(jnp.float32)), share)
    images = jnp.where(either, pasted, share * images + (1 - share) * others)
    return images, share * targets + (1 - share) * targets[::-1]


def _beta(key: PRNGKeyArray, alpha: float) -> Float[Array, ""]:
    return jax.random.beta(key, alpha, alpha) if alpha else jnp.ones(())


def _box(side: Float[Array, ""], centre: Float[Array, " 2"], size: int) -> Array:
    at = (jnp.arange(size) + 0.5) / size
    rows, columns = (jnp.abs(at - c) < side / 2 for c in centre)
    return rows[:, None] & columns[None, :]


def _rectangles(sides: Float[Array, "B 2"], corner: Float[Array, "B 2"], size: int) -> Array:
    """Bool [B, size, size]: rectangles that lie inside, ``corner`` being their place within the room that they have."""
    first = corner * (1 - sides)
    at = (jnp.arange(size) + 0.5)[None, :] / size
    rows, columns = ((at >= first[:, i, None]) & (at < (first + sides)[:, i, None]) for i in (0, 1))
    return rows[:, :, None] & columns[:, None, :]
