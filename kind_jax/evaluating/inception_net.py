"""Inception-v3 as the reference FID uses it: Google's graph of 2015-12-05, not the network of the paper or torchvision.

What differs from torchvision's: average pools do not count the padding, the last block pools by maximum, there are 1008
classes, and images are resized as TensorFlow 1 did. Names are those of the port to PyTorch (mseitzer/pytorch-fid,
toshas/torch-fidelity). N: images, H, W, C: their height, width, channels; NHWC throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SIDE = 299
POOL, CLASSES = 2048, 1008
RESIZE = "bilinear to 299 x 299 as in TensorFlow 1: half_pixel_centers=False, align_corners=False, no antialiasing"
_EPSILON = 1e-3

Padding = Literal["SAME", "VALID"]


@runtime_checkable
class Conv(Protocol):
    """Convolution, batch normalisation in its inference form, ReLU; ``name`` finds the weights."""

    def __call__(
        self, x: Array, name: str, features: int, kernel: tuple[int, int], stride: int = 1, padding: Padding = "SAME"
    ) -> Array: ...


def _max_pool(x: Array, stride: int, padding: Padding) -> Array:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def _average_pool(x: Array) -> Array:
    """Means over 3 x 3 neighbourhoods that leave out what lies beyond the border."""

    def total(a: Array) -> Array:
        return jax.lax.reduce_window(a, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")

    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def _block_a(conv: Conv, x: Array, name: str, pool: int) -> Array:
    five = conv(conv(x, f"{name}.branch5x5_1", 48, (1, 1)), f"{name}.branch5x5_2", 64, (5, 5))
    three = conv(x, f"{name}.branch3x3dbl_1", 64, (1, 1))
    three = conv(three, f"{name}.branch3x3dbl_2", 96, (3, 3))
    three = conv(three, f"{name}.branch3x3dbl_3", 96, (3, 3))
    pooled = conv(_average_pool(x), f"{name}.branch_pool", pool, (1, 1))
    return jnp.concatenate([conv(x, f"{name}.branch1x1", 64, (1, 1)), five, three, pooled], axis=-1)


def _block_b(conv: Conv, x: Array, name: str) -> Array:
    three = conv(x, f"{name}.branch3x3dbl_1", 64, (1, 1))
    three = conv(three, f"{name}.branch3x3dbl_2", 96, (3, 3))
    three = conv(three, f"{name}.branch3x3dbl_3", 96, (3, 3), 2, "VALID")
    return jnp.concatenate(
        [conv(x, f"{name}.branch3x3", 384, (3, 3), 2, "VALID"), three, _max_pool(x, 2, "VALID")], axis=-1
    )


def _block_c(conv: Conv, x: Array, name: str, width: int) -> Array:
    seven = conv(x, f"{name}.branch7x7_1", width, (1, 1))
    seven = conv(seven, f"{name}.branch7x7_2", width, (1, 7))
    seven = conv(seven, f"{name}.branch7x7_3", 192, (7, 1))
    double = conv(x, f"{name}.branch7x7dbl_1", width, (1, 1))
    for i, kernel in ((2, (7, 1)), (3, (1, 7)), (4, (7, 1))):
        double = conv(double, f"{name}.branch7x7dbl_{i}", width, kernel)
    double = conv(double, f"{name}.branch7x7dbl_5", 192, (1, 7))
    pooled = conv(_average_pool(x), f"{name}.branch_pool", 192, (1, 1))
    return jnp.concatenate([conv(x, f"{name}.branch1x1", 192, (1, 1)), seven, double, pooled], axis=-1)


def _block_d(conv: Conv, x: Array, name: str) -> Array:
    three = conv(x, f"{name}.branch3x3_1", 192, (1, 1))
    three = conv(three, f"{name}.branch3x3_2", 320, (3, 3), 2, "VALID")
    seven = conv(x, f"{name}.branch7x7x3_1", 192, (1, 1))
    seven = conv(seven, f"{name}.branch7x7x3_2", 192, (1, 7))
    seven = conv(seven, f"{name}.branch7x7x3_3", 192, (7, 1))
    seven = conv(seven, f"{name}.branch7x7x3_4", 192, (3, 3), 2, "VALID")
    return jnp.concatenate([three, seven, _max_pool(x, 2, "VALID")], axis=-1)


def _block_e(conv: Conv, x: Array, name: str, pool: Callable[[Array], Array]) -> Array:
    three = conv(x, f"{name}.branch3x3_1", 384, (1, 1))
    double = conv(x, f"{name}.branch3x3dbl_1", 448, (1, 1))
    double = conv(double, f"{name}.branch3x3dbl_2", 384, (3, 3))
    parts = [
        conv(x, f"{name}.branch1x1", 320, (1, 1)),
        conv(three, f"{name}.branch3x3_2a", 384, (1, 3)),
        conv(three, f"{name}.branch3x3_2b", 384, (3, 1)),
        conv(double, f"{name}.branch3x3dbl_3a", 384, (1, 3)),
        conv(double, f"{name}.branch3x3dbl_3b", 384, (3, 1)),
        conv(pool(x), f"{name}.branch_pool", 192, (1, 1)),
    ]
    return jnp.concatenate(parts, axis=-1)


def network(conv: Conv, x: Float[Array, "N H W 3"]) -> tuple[Float[Array, "N 2048"], Float[Array, "N h w 7"]]:
    """Pool features, and the first 7 channels of ``Mixed_6d`` (``mixed_6/conv`` in Google's graph), as in ADM's sFID.

    It says the architecture once: run with weights it computes, run with a recorder it lists them.
    """
    x = conv(x, "Conv2d_1a_3x3", 32, (3, 3), 2, "VALID")
    x = conv(x, "Conv2d_2a_3x3", 32, (3, 3), 1, "VALID")
    x = _max_pool(conv(x, "Conv2d_2b_3x3", 64, (3, 3)), 2, "VALID")
    x = conv(x, "Conv2d_3b_1x1", 80, (1, 1), 1, "VALID")
    x = _max_pool(conv(x, "Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"), 2, "VALID")
    for name, pool in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        x = _block_a(conv, x, name, pool)
    x = _block_b(conv, x, "Mixed_6a")
    x = _block_c(conv, x, "Mixed_6b", 128)
    x = _block_c(conv, x, "Mixed_6c", 160)
    x = _block_c(conv, x, "Mixed_6d", 160)
    spatial = x[..., :7]
    x = _block_c(conv, x, "Mixed_6e", 192)
    x = _block_d(conv, x, "Mixed_7a")
    x = _block_e(conv, x, "Mixed_7b", _average_pool)
    x = _block_e(conv, x, "Mixed_7c", lambda a: _max_pool(a, 1, "SAME"))
    return x.mean(axis=(1, 2)), spatial


def leaves() -> dict[str, tuple[int, ...]]:
    """Name and shape of every leaf of the PyTorch checkpoint, in the network's order."""
    found: dict[str, tuple[int, ...]] = {}

    def record(
        x: Array, name: str, features: int, kernel: tuple[int, int], stride: int = 1, padding: Padding = "SAME"
    ) -> Array:
        found[f"{name}.conv.weight"] = (features, x.shape[-1], *kernel)
        found.update({f"{name}.bn.{leaf}": (features,) for leaf in ("weight", "bias", "running_mean", "running_var")})
        height, width = (
            -(-n // stride) if padding == "SAME" else (n - k) // stride + 1
            for n, k in zip(x.shape[1:3], kernel, strict=True)
        )
        return jnp.zeros((x.shape[0], height, width, features))

    jax.eval_shape(lambda x: network(record, x), jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32))
    return found | {"fc.weight": (CLASSES, POOL), "fc.bias": (CLASSES,)}


def weighted(weights: Mapping[str, Array]) -> Conv:
    """The convolutions of a checkpoint. HIGHEST: TF32 or bfloat16 products would move the features."""

    def conv(
        x: Array, name: str, features: int, kernel: tuple[int, int], stride: int = 1, padding: Padding = "SAME"
    ) -> Array:
        w, scale = weights[f"{name}.conv.weight"], weights[f"{name}.bn.weight"]
        mean, variance = weights[f"{name}.bn.running_mean"], weights[f"{name}.bn.running_var"]
        y = jax.lax.conv_general_dilated(
            x, w, (stride, stride), padding, dimension_numbers=("NHWC", "OIHW", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )  # fmt: skip
        scale = scale * jax.lax.rsqrt(variance + _EPSILON)
        shift = weights[f"{name}.bn.bias"] - mean * scale
        return jax.nn.relu(y * scale[None, None, None, :] + shift[None, None, None, :])

    return conv


def resize(images: Float[Array, "N H W C"]) -> Float[Array, "N 299 299 C"]:
    """Bilinear as in TensorFlow 1: corners of pixels (not centres) are aligned, and nothing is smoothed beforehand."""

    def lerp(x: Array, axis: int) -> Array:
        size = x.shape[axis]
        place = jnp.arange(SIDE, dtype=jnp.float32) * jnp.float32(size / SIDE)
        low = jnp.minimum(place.astype(jnp.int32), size - 1)
        a, b = jnp.take(x, low, axis), jnp.take(x, jnp.minimum(low + 1, size - 1), axis)
        shape = [1] * x.ndim
        shape[axis] = SIDE
        return a + (b - a) * (place - low.astype(jnp.float32)).reshape(shape)

    return lerp(lerp(images, 2), 1)


def features(
    weights: Mapping[str, Array], images: Float[Array, "N H W 3"]
) -> tuple[Float[Array, "N 2048"], Float[Array, "N 2023"], Float[Array, "N 1008"]]:
    """Pool features, flattened spatial features, and class probabilities of images in [-1, 1].

    The probabilities leave out the bias of the last layer, as the Inception scores of OpenAI's evaluators do.
    """
    x = resize((images + 1.0) * 127.5)
    pool, spatial = network(weighted(weights), (x - 128.0) / 128.0)  # not ± 1, but what the graph does
    logits = jnp.matmul(pool, weights["fc.weight"].T, precision=jax.lax.Precision.HIGHEST)
    return pool, spatial.reshape(len(spatial), -1), jax.nn.softmax(logits)
