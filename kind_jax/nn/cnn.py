"""A small residual classifier for any image size. N: images, H: height, W: width, C: channels.

He et al. 2016, in the order of their second paper (norm, activation, convolution). The stem takes a stride, so that
most of the work is done at 16 pixels a side or fewer, where XLA:CPU's convolutions are fast.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from kind_jax.config.networks import CNNConfig
from kind_jax.nn.gate import Gate
from kind_jax.nn.init import Initializer
from kind_jax.nn.linear import Dense
from kind_jax.nn.norm import BatchNorm
from kind_jax.nn.pieces import drop, keep_stages
from kind_jax.nn.resnet import Conv, Sequential

FEATURES = 32
_WIDTHS = (32, 64, 128)
_LARGEST, _STEM_SIDE = 64, 16
_EPS = 1e-5


class _Block(nnx.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, config: CNNConfig, fan_in: int, fan_out: int, stride: int, *, init: Initializer) -> None:
        self.stride = stride
        self.norm_1 = BatchNorm(fan_in, eps=_EPS, momentum=config.momentum, init=init)
        self.conv_1 = Conv(fan_in, fan_out, 3, stride, init=init)
        self.norm_2 = BatchNorm(fan_out, eps=_EPS, momentum=config.momentum, init=init)
        self.conv_2 = Conv(fan_out, fan_out, 3, init=init)
        # The block begins by passing on what it gets.
        self.conv_2.kernel = nnx.Param(init.zeros(3, 3, fan_out, fan_out))
        self.shortcut = Conv(fan_in, fan_out, 1, init=init) if fan_in != fan_out else None

    def __call__(self, x: Float[Array, "N h w C"], *, train: bool) -> Float[Array, "N h_out w_out C_out"]:
        beside = block_means(x, self.stride)
        if self.shortcut is not None:
            beside = self.shortcut(beside)
        x = self.conv_1(jax.nn.relu(self.norm_1(x, train=train)))
        return beside + self.conv_2(jax.nn.relu(self.norm_2(x, train=train)))


class CNN(nnx.Module):
    """A strided stem, residual blocks that halve the sides, means over the image, 32 features, one logit a class.

    Images of more than 64 pixels a side are averaged over square blocks first.
    """

    def __init__(self, config: CNNConfig, *, init: Initializer) -> None:
        self.config = config
        self.shrink = -(-config.seen_size // _LARGEST)
        side = -(-config.seen_size // self.shrink)
        stride = next(s for s in (1, 2, 4) if side <= s * _STEM_SIDE)
        self.stem = Conv(config.seen_channels, _WIDTHS[0], max(3, 2 * stride - 1), stride, init=init)
        blocks, fan_in = [], _WIDTHS[0]
        for fan_out in _WIDTHS:
            blocks.append(_Block(config, fan_in, fan_out, 2 if blocks else 1, init=init))
            fan_in = fan_out
        self.stages = Sequential(blocks)
        self.norm = BatchNorm(fan_in, eps=_EPS, momentum=config.momentum, init=init)
        self.hidden = Dense(fan_in, FEATURES, init=init)
        self.head = Dense(FEATURES, config.num_classes, init=init)

    def __call__(
        self, images: Float[Array, "N H W C"], gate: Gate | None = None, *, train: bool = False, paths: None = None
    ) -> Float[Array, "N classes"]:
        """Logits, float32; the arguments are those of :meth:`features`."""
        return self.logits(self.features(images, gate, train=train, paths=paths))

    def features(
        self, images: Float[Array, "N H W C"], gate: Gate | None = None, *, train: bool = False, paths: None = None
    ) -> Float[Array, "N 32"]:
        """What the head sees, float32.

        Taken before the activation, which silences about half of so few features: a Fréchet distance would be blind in
        those directions.

        Args:
          images: as the network sees them, see :class:`kind_jax.config.classifier.ClassifierConfig`.
          gate, paths: it has neither tailors nor stochastic depth.
          train: whether batches are normalised by themselves, and the statistics move.
        """
        del gate, paths
        return self.leave(self.through(self.enter(images, train=train), train=train), train=train)

    def enter(self, images: Float[Array, "N H W C"], *, train: bool = False) -> Float[Array, "N h w C_0"]:
        """What the first stage sees."""
        del train
        return self.stem(block_means(images.astype(self.config.dtype), self.shrink))

    def through(
        self, x: Float[Array, "N h w C"], gate: Gate | None = None, *, train: bool = False
    ) -> Float[Array, "N h_out w_out C_out"]:
        """``x`` after all stages that are held."""
        del gate
        for block in self.stages:
            x = x if block is None else block(x, train=train)
        return x

    def leave(self, x: Float[Array, "N h w C"], *, train: bool = False) -> Float[Array, "N 32"]:
        """The features of what the last stage gives."""
        x = jax.nn.relu(self.norm(x, train=train)).mean(axis=(1, 2))
        return self.hidden(x).astype(jnp.float32)

    def keep(self, begin: int, end: int, count: int) -> None:
        """Hold no more than what lies between two places, see :mod:`kind_jax.nn.pieces`."""
        if begin > 0 or end == 0:
            drop(self, "stem")
        keep_stages(self.stages, begin, end)
        if not begin <= count < end:
            drop(self, "norm", "hidden")
        if end <= count + 1:
            drop(self, "head")

    def logits(self, features: Float[Array, "N 32"]) -> Float[Array, "N classes"]:
        """Of what :meth:`features` gives, float32."""
        return self.head(jax.nn.gelu(features.astype(self.config.dtype))).astype(jnp.float32)


def block_means(x: Float[Array, "N H W C"], side: int) -> Float[Array, "N h w C"]:
    """Means of blocks of ``side`` pixels a side; the border is repeated where the last ones are not full."""
    if side == 1:
        return x
    count, height, width, channels = x.shape
    if height % side or width % side:
        x = jnp.pad(x, ((0, 0), (0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    return x.reshape(count, x.shape[1] // side, side, x.shape[2] // side, side, channels).mean(axis=(2, 4))
