"""EfficientNet-Lite0 (Tan & Le 2019; the Lite family of 2020), in the details of its authors' TensorFlow code.

Dimensions: B samples, H, W image, h, w features, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from kind_jax.config.networks import EfficientNetConfig
from kind_jax.nn.depthwise import depthwise
from kind_jax.nn.gate import Gate
from kind_jax.nn.init import Initializer
from kind_jax.nn.linear import Dense
from kind_jax.nn.norm import BatchNorm
from kind_jax.nn.pieces import drop, keep_stages
from kind_jax.nn.resnet import Sequential

STEM, FEATURES = 32, 1280


class Stage(NamedTuple):
    """Blocks of one shape, the first of which has the stride.

    Attributes:
      expansion: channels inside a block for each one that comes in.
      side: of the depthwise convolution.
    """

    blocks: int
    channels: int
    expansion: int
    side: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 3, 1), Stage(2, 24, 6, 3, 2), Stage(2, 40, 6, 5, 2), Stage(3, 80, 6, 3, 2), Stage(3, 112, 6, 5, 1),
    Stage(4, 192, 6, 5, 2), Stage(1, 320, 6, 3, 1),
)  # fmt: skip
"""Those of EfficientNet-B0, Tan & Le's table 1."""


class Conv(nnx.Module):
    """A convolution without bias, padded as TensorFlow's ``SAME``: of an odd number of pixels, more behind than in
    front."""

    def __init__(self, fan_in: int, fan_out: int, side: int, stride: int = 1, *, init: Initializer) -> None:
        """Normal with variance 2 / (side² fan_out)."""
        self.stride = stride
        self.kernel = nnx.Param(init.normal(side, side, fan_in, fan_out, stddev=(2 / (side * side * fan_out)) ** 0.5))

    def __call__(self, x: Float[Array, "B h w C_in"]) -> Float[Array, "B h_out w_out C_out"]:
        return jax.lax.conv_general_dilated(
            x, self.kernel[...].astype(x.dtype), (self.stride,) * 2, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


class Depthwise(nnx.Module):
    """The same, of each channel for itself."""

    def __init__(self, channels: int, side: int, stride: int, *, init: Initializer) -> None:
        """Normal with variance 2 / side²."""
        self.stride = stride
        self.kernel = nnx.Param(init.normal(side, side, 1, channels, stddev=(2 / (side * side)) ** 0.5))

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h_out w_out C"]:
        return depthwise(x, self.kernel[...].astype(x.dtype), self.stride)


class Block(nnx.Module):
    """An inverted bottleneck (Sandler et al. 2018): 1 x 1 to more channels, depthwise, 1 x 1 to few without activation,
    and a shortcut where input and output have one shape."""

    def __init__(
        self, config: EfficientNetConfig, fan_in: int, stage: Stage, stride: int, *, init: Initializer
    ) -> None:
        inside = fan_in * stage.expansion
        wider = stage.expansion > 1
        self.expand = Conv(fan_in, inside, 1, init=init) if wider else None
        self.expand_norm = _norm(config, inside, init) if wider else None
        self.depthwise = Depthwise(inside, stage.side, stride, init=init)
        self.depthwise_norm = _norm(config, inside, init)
        self.project = Conv(inside, stage.channels, 1, init=init)
        self.project_norm = _norm(config, stage.channels, init)
        self.shortcut = stride == 1 and fan_in == stage.channels

    def __call__(self, x: Float[Array, "B h w C"], *, train: bool) -> Float[Array, "B h_out w_out C_out"]:
        y = x
        if self.expand is not None and self.expand_norm is not None:
            y = jax.nn.relu6(self.expand_norm(self.expand(y), train=train))
        y = jax.nn.relu6(self.depthwise_norm(self.depthwise(y), train=train))
        y = self.project_norm(self.project(y), train=train)
        return x + y if self.shortcut else y


class EfficientNet(nnx.Module):
    """Logits of images. Networks hold no randomness, so that its dropout before the head and the drop connect of its
    blocks, which are for training alone, are left out."""

    def __init__(self, config: EfficientNetConfig, *, init: Initializer) -> None:
        self.config = config
        self.stem = Conv(config.seen_channels, STEM, 3, 2, init=init)
        self.norm = _norm(config, STEM, init)
        before, stages = STEM, []
        for stage in STAGES:
            blocks = []
            for i in range(stage.blocks):
                blocks.append(Block(config, before, stage, 1 if i else stage.stride, init=init))
                before = stage.channels
            stages.append(Sequential(blocks))
        self.stages = Sequential(stages)
        self.top = Conv(before, FEATURES, 1, init=init)
        self.top_norm = _norm(config, FEATURES, init)
        self.head = Dense(FEATURES, config.num_classes, init=init)
        bound = FEATURES**-0.5  # PyTorch's own
        self.head.kernel = nnx.Param(init.uniform(FEATURES, config.num_classes, bound=bound))
        self.head.bias = nnx.Param(init.uniform(config.num_classes, bound=bound))

    def __call__(
        self, images: Float[Array, "B H W C"], gate: Gate | None = None, *, train: bool = False, paths: None = None
    ) -> Float[Array, "B classes"]:
        """Logits, float32; the arguments are those of :meth:`features`."""
        return self.logits(self.features(images, gate, train=train, paths=paths))

    def features(
        self, images: Float[Array, "B H W C"], gate: Gate | None = None, *, train: bool = False, paths: None = None
    ) -> Float[Array, "B 1280"]:
        """What the head sees, float32: means over the image.

        Args:
          images: as the network sees them, see :class:`kind_jax.config.classifier.ClassifierConfig`.
          gate, paths: it has neither tailors nor stochastic depth.
          train: whether batches are normalised by themselves, and the statistics move.
        """
        del gate, paths
        return self.leave(self.through(self.enter(images, train=train), train=train), train=train)

    def enter(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Float[Array, "B h w C_0"]:
        """What the first stage sees."""
        return jax.nn.relu6(self.norm(self.stem(images.astype(self.config.dtype)), train=train))

    def through(
        self, x: Float[Array, "B h w C"], gate: Gate | None = None, *, train: bool = False
    ) -> Float[Array, "B h_out w_out C_out"]:
        """``x`` after all stages that are held."""
        del gate
        for stage in self.stages:
            for block in stage or ():
                x = block(x, train=train)
        return x

    def leave(self, x: Float[Array, "B h w C"], *, train: bool = False) -> Float[Array, "B 1280"]:
        """The features of what the last stage gives."""
        x = jax.nn.relu6(self.top_norm(self.top(x), train=train))
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))

    def keep(self, begin: int, end: int, count: int) -> None:
        """Hold no more than what lies between two places, see :mod:`kind_jax.nn.pieces`."""
        if begin > 0 or end == 0:
            drop(self, "stem", "norm")
        keep_stages(self.stages, begin, end)
        if not begin <= count < end:
            drop(self, "top", "top_norm")
        if end <= count + 1:
            drop(self, "head")

    def logits(self, features: Float[Array, "B 1280"]) -> Float[Array, "B classes"]:
        """Of what :meth:`features` gives, float32."""
        return self.head(features.astype(self.config.dtype)).astype(jnp.float32)


def _norm(config: EfficientNetConfig, channels: int, init: Initializer) -> BatchNorm:
    return BatchNorm(channels, eps=config.norm_eps, momentum=config.momentum, init=init)
