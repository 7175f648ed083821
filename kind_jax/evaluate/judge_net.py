"""The network of the judge: a small residual classifier. N: images, H: height, W: width, C: channels.

He et al. 2016, in the order of their second paper (norm, activation, convolution). The stem takes a stride, so that
most of the work is done at 16 pixels a side or fewer, where XLA:CPU's convolutions are fast.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Array, Float, Key

FEATURES = 32
_WIDTHS = (32, 64, 128)
_LARGEST, _STEM_SIDE = 64, 16
_EPS = 1e-5

Params = dict[Any, Any]
Moments = tuple[Float[Array, " _"], Float[Array, " _"]]
"""Mean and variance of each channel over a batch."""


class Norm(nnx.Module):
    """A scale and an offset for each channel; while the judge is trained, the batch is normalised first.

    Ioffe & Szegedy 2015. The moments that a trained judge normalises with are multiplied into scale and offset
    (:func:`fold`), so that it sees each image alone.
    """

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels))
        self.offset = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "N h w C"]) -> Float[Array, "N h w C"]:
        return x * _of_channels(self.scale[...]) + _of_channels(self.offset[...])

    def of_batch(self, x: Float[Array, "N h w C"]) -> tuple[Float[Array, "N h w C"], Moments]:
        """``x`` normalised over the batch, then scaled; and the moments that it had."""
        mean = x.mean(axis=(0, 1, 2))
        variance = jnp.square(x).mean(axis=(0, 1, 2)) - jnp.square(mean)
        scale = jax.lax.rsqrt(variance + _EPS) * self.scale[...]
        return (x - _of_channels(mean)) * _of_channels(scale) + _of_channels(self.offset[...]), (mean, variance)


def _of_channels(values: Float[Array, " C"]) -> Float[Array, "1 1 1 C"]:
    return values[None, None, None, :]


Normalise = Callable[[Norm, Array], Array]


class _Block(nnx.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, *, rngs: nnx.Rngs):
        self.stride = stride
        self.first, self.second = Norm(fan_in), Norm(fan_out)
        self.into = _conv(fan_in, fan_out, 3, stride, rngs=rngs)
        self.out = _conv(fan_out, fan_out, 3, 1, rngs=rngs)
        self.shortcut = nnx.Linear(fan_in, fan_out, use_bias=False, rngs=rngs) if fan_in != fan_out else None

    def __call__(self, x: Array, normalise: Normalise) -> Array:
        beside = x if self.stride == 1 else _block_means(x, self.stride)
        if self.shortcut is not None:
            beside = self.shortcut(beside)
        x = self.into(nnx.relu(normalise(self.first, x)))
        return beside + self.out(nnx.relu(normalise(self.second, x)))


class JudgeNet(nnx.Module):
    """A strided stem, residual blocks that halve the sides, means over the image, 32 features, one logit a class.

    Images of more than 64 pixels a side are averaged over square blocks first.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs):
        self.shrink = -(-max(shape[:2]) // _LARGEST)
        side = -(-max(shape[:2]) // self.shrink)
        stride = next(s for s in (1, 2, 4) if side <= s * _STEM_SIDE)
        self.stem = _conv(shape[2], _WIDTHS[0], max(3, 2 * stride - 1), stride, rngs=rngs)
        blocks, fan_in = [], _WIDTHS[0]
        for fan_out in _WIDTHS:
            blocks.append(_Block(fan_in, fan_out, 2 if blocks else 1, rngs=rngs))
            fan_in = fan_out
        self.blocks, self.last = nnx.List(blocks), Norm(fan_in)
        self.hidden = nnx.Linear(fan_in, FEATURES, rngs=rngs)
        self.head = nnx.Linear(FEATURES, num_classes, rngs=rngs)

    def __call__(
        self, images: Float[Array, "N H W C"], normalise: Normalise = lambda norm, x: norm(x)
    ) -> tuple[Float[Array, "N 32"], Float[Array, "N classes"]]:
        """The features and the logits."""
        x = self.stem(_block_means(images, self.shrink))
        for block in self.blocks:
            x = block(x, normalise)
        x = nnx.relu(normalise(self.last, x)).mean(axis=(1, 2))
        # Taken before the activation, which silences about half of so few features: a Fréchet distance would be blind
        # in those directions.
        features = self.hidden(x)
        return features, self.head(nnx.gelu(features))


def _conv(fan_in: int, fan_out: int, side: int, stride: int, *, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(fan_in, fan_out, (side, side), (stride, stride), use_bias=False, rngs=rngs)


def _block_means(x: Float[Array, "N H W C"], side: int) -> Float[Array, "N h w C"]:
    """Means of blocks of ``side`` pixels a side; the border is repeated where the last ones are not full."""
    if side == 1:
        return x
    count, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    return x.reshape(count, x.shape[1] // side, side, x.shape[2] // side, side, channels).mean(axis=(2, 4))


def init(shape: tuple[int, int, int], num_classes: int, key: Key[Array, ""]) -> Params:
    """Fresh weights as a nested dict of arrays, drawn on the host, where nothing is compiled for it.

    Kernels as in He et al. 2015, but zero for the last of each block, which then passes on what it gets.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())

    def draw(path: tuple[Any, ...], spec: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1] == "kernel" and path[-2] != "out":
            deviation = np.sqrt(2 / np.prod(spec.shape[:-1]))
            return rng.normal(0, deviation, spec.shape).astype(spec.dtype)
        return np.full(spec.shape, 1 if path[-1] == "scale" else 0, spec.dtype)

    specs: dict[Any, Any] = traverse_util.flatten_dict(blueprint(shape, num_classes)[1])
    return traverse_util.unflatten_dict({path: jnp.asarray(draw(path, spec)) for path, spec in specs.items()})


def blueprint(shape: tuple[int, int, int], num_classes: int) -> tuple[nnx.GraphDef[JudgeNet], Params]:
    """The structure of the network, and its weights as shapes and dtypes only."""
    net = nnx.eval_shape(lambda: JudgeNet(shape, num_classes, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(net)
    return graph, nnx.to_pure_dict(state)


def apply(
    graph: nnx.GraphDef[JudgeNet], params: Params, images: Float[Array, "N H W C"]
) -> tuple[Float[Array, "N 32"], Float[Array, "N classes"]]:
    """Features and logits, as a pure function of the weights."""
    return nnx.merge(graph, params)(images)


apply_jit = jax.jit(apply, static_argnums=0)


def apply_batch(
    graph: nnx.GraphDef[JudgeNet], params: Params, images: Float[Array, "N H W C"]
) -> tuple[Float[Array, "N classes"], list[Moments]]:
    """Logits as in training, and the moments of what each norm saw, in order of use."""
    seen: list[Moments] = []

    def normalise(norm: Norm, x: Array) -> Array:
        x, moments = norm.of_batch(x)
        seen.append(moments)
        return x

    return nnx.merge(graph, params)(images, normalise)[1], seen


def fold(graph: nnx.GraphDef[JudgeNet], params: Params, moments: list[Moments]) -> Params:
    """Weights whose norms do to any image what they did to a batch of these moments, which are in order of use."""
    net = nnx.merge(graph, params)
    norms = [norm for block in net.blocks for norm in (block.first, block.second)] + [net.last]
    for norm, (mean, variance) in zip(norms, moments, strict=True):
        scale = norm.scale[...] * jax.lax.rsqrt(variance + _EPS)
        norm.scale[...], norm.offset[...] = scale, norm.offset[...] - mean * scale
    return nnx.to_pure_dict(nnx.state(net))
