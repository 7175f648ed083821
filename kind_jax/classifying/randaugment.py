"""RandAugment on the device (Cubuk et al. 2020), with the fifteen operations and strengths of timm's recipe for DeiT.

No light library has it for JAX: torchvision's and timm's run on the host, image by image. B: samples, H = W: image
side, C: channels. Images are in [-1, 1]; where an operation moves one, what comes in is grey (0).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Images = Float[Array, "B H W C"]
Image = Float[Array, "H W C"]

_GEOMETRIC = 5  # rotate, shear x and y, translate x and y: one warp, whichever it is
_LEVELS = 255.0


def randaugment(images: Images, key: PRNGKeyArray, count: int, strength: float) -> Images:
    """``count`` operations for each image, each drawn from all of them with equal probability.

    Args:
      strength: 0 to 10; operations that have a sign draw it.
    """
    for each in jax.random.split(key, count):
        images = _once(images, each, strength / 10)
    return jnp.clip(images, -1.0, 1.0)


def _once(images: Images, key: PRNGKeyArray, strength: float) -> Images:
    keys = jax.random.split(key, 2)
    which = jax.random.randint(keys[0], (len(images),), 0, _GEOMETRIC + len(_COLOURS))
    sign = jnp.where(jax.random.bernoulli(keys[1], shape=(len(images),)), 1.0, -1.0)
    moved = jax.vmap(_warp)(images, jax.vmap(lambda w, s: _motion(w, s * strength))(which, sign))
    unit = (images + 1) / 2
    candidates = [operation(unit, strength, sign[:, None, None, None]) * 2 - 1 for operation in _COLOURS]
    conditions = [(which == i)[:, None, None, None] for i in range(_GEOMETRIC, _GEOMETRIC + len(_COLOURS))]
    return jnp.select(conditions, candidates, moved)


def _motion(which: Array, amount: Array) -> Float[Array, "2 3"]:
    """Where a pixel (y, x), in [-1, 1] from the centre, comes from: A (y, x) + b as [A | b]; else where it is."""
    angle = amount * math.radians(30)
    cos, sin, none, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros(()), jnp.ones(())
    shear, shift = 0.3 * amount, 0.45 * 2 * amount

    def matrix(*entries: Array) -> Array:
        return jnp.stack(entries).reshape(2, 3)

    return jnp.select(
        [which == i for i in range(_GEOMETRIC)],
        [
            matrix(cos, -sin, none, sin, cos, none),
            matrix(one, none, none, shear, one, none),
            matrix(one, shear, none, none, one, none),
            matrix(one, none, none, none, one, shift),
            matrix(one, none, shift, none, one, none),
        ],
        matrix(one, none, none, none, one, none),
    )


def _warp(image: Image, motion: Float[Array, "2 3"]) -> Image:
    size = image.shape[0]
    line = (jnp.arange(size) + 0.5) * 2 / size - 1
    y, x = jnp.meshgrid(line, line, indexing="ij")
    places = jnp.einsum("ij,jhw->ihw", motion[:, :2], jnp.stack([y, x])) + motion[:, 2, None, None]
    places = (places + 1) * size / 2 - 0.5

    def channel(values: Float[Array, "H W"]) -> Float[Array, "H W"]:
        return jax.scipy.ndimage.map_coordinates(values, list(places), order=1, mode="constant", cval=0.0)

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


# Colour operations of images in [0, 1]: strength in [0, 1], sign [B, 1, 1, 1].


def _autocontrast(x: Images, strength: float, sign: Array) -> Images:
    del strength, sign
    low, high = (f(x, axis=(1, 2), keepdims=True) for f in (jnp.min, jnp.max))
    return jnp.where(high > low, (x - low) / jnp.maximum(high - low, 1e-6), x)


def _equalize(x: Images, strength: float, sign: Array) -> Images:
    """Each channel's levels spread evenly, as PIL does it."""
    del strength, sign
    levels = jnp.round(x * _LEVELS).astype(jnp.int32).clip(0, 255)

    def channel(values: Array) -> Array:
        counts = jnp.zeros(256, jnp.int32).at[values.reshape(-1)].add(1)
        last = counts[255 - jnp.argmax(counts[::-1] > 0)]
        step = (values.size - last) // 255
        table = ((jnp.cumsum(counts) - counts + step // 2) // jnp.maximum(step, 1)).clip(0, 255)
        return jnp.where(step > 0, table[values], values)

    spread = jax.vmap(jax.vmap(channel, in_axes=-1, out_axes=-1))(levels)
    return spread / _LEVELS


def _invert(x: Images, strength: float, sign: Array) -> Images:
    del strength, sign
    return 1 - x


def _posterize(x: Images, strength: float, sign: Array) -> Images:
    del sign
    bits = 2.0 ** (4 - int(strength * 4))  # levels that are left of 16
    return jnp.floor(jnp.round(x * _LEVELS) / (256 / bits)) * (256 / bits) / _LEVELS


def _solarize(x: Images, strength: float, sign: Array) -> Images:
    del sign
    return jnp.where(x * _LEVELS < 256 - int(strength * 256), x, 1 - x)


def _solarize_add(x: Images, strength: float, sign: Array) -> Images:
    del sign
    return jnp.where(x * _LEVELS < 128, jnp.clip(x + int(strength * 110) / _LEVELS, 0, 1), x)


def _blend(x: Images, other: Images, strength: float, sign: Array) -> Images:
    """Away from ``other``, or towards it."""
    return jnp.clip(other + (1 + sign * 0.9 * strength) * (x - other), 0, 1)


def _grey(x: Images) -> Float[Array, "B H W 1"]:
    if x.shape[-1] != 3:
        return jnp.mean(x, axis=-1, keepdims=True)
    return jnp.sum(x * jnp.asarray([0.299, 0.587, 0.114], x.dtype)[None, None, None, :], axis=-1, keepdims=True)


def _colour(x: Images, strength: float, sign: Array) -> Images:
    return _blend(x, jnp.broadcast_to(_grey(x), x.shape), strength, sign)


def _contrast(x: Images, strength: float, sign: Array) -> Images:
    mean = jnp.mean(_grey(x), axis=(1, 2), keepdims=True)
    return _blend(x, jnp.broadcast_to(mean, x.shape), strength, sign)


def _brightness(x: Images, strength: float, sign: Array) -> Images:
    return _blend(x, jnp.zeros_like(x), strength, sign)


def _sharpness(x: Images, strength: float, sign: Array) -> Images:
    """Against PIL's smoothing, which leaves the border as it is."""
    weights = jnp.asarray([[1, 1, 1], [1, 5, 1], [1, 1, 1]], x.dtype) / 13
    sides = x.shape[1] - 2, x.shape[2] - 2
    smooth = sum(weights[i, j] * x[:, i : i + sides[0], j : j + sides[1]] for i in range(3) for j in range(3))
    return _blend(x, x.at[:, 1:-1, 1:-1].set(smooth), strength, sign)


_COLOURS = (
    _autocontrast, _equalize, _invert, _posterize, _solarize, _solarize_add, _colour, _contrast, _brightness,
    _sharpness,
)  # fmt: skip
