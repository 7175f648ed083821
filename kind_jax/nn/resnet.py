"""Residual networks (He et al. 2016): the type for small images, and ImageNet's in torchvision's details.

Dimensions: B samples, H, W image, h, w features, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from kind_jax.config.networks import ResNetConfig
from kind_jax.nn.gate import Gate
from kind_jax.nn.init import Initializer
from kind_jax.nn.linear import Dense
from kind_jax.nn.norm import BatchNorm
from kind_jax.nn.pieces import drop, keep_stages


class Conv(nnx.Module):
    """A convolution without bias, padded by half its side on every side, as PyTorch's networks are."""

    def __init__(self, fan_in: int, fan_out: int, side: int, stride: int = 1, *, init: Initializer) -> None:
        """He et al. 2015, for the outputs (fan_out): normal with variance 2 / (side² fan_out)."""
        self.stride = stride
        self.kernel = nnx.Param(init.normal(side, side, fan_in, fan_out, stddev=(2 / (side * side * fan_out)) ** 0.5))

    def __call__(self, x: Float[Array, "B h w C_in"]) -> Float[Array, "B h_out w_out C_out"]:
        kernel = self.kernel[...].astype(x.dtype)
        around = kernel.shape[0] // 2
        return jax.lax.conv_general_dilated(
            x, kernel, (self.stride, self.stride), [(around, around)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


class Sequential(nnx.Module):
    """Modules as attributes "0", "1", ...: an nnx.List would have numbers in its paths."""

    def __init__(self, modules: Sequence[nnx.Module]) -> None:
        self.length = len(modules)
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __iter__(self) -> Any:
        return (getattr(self, str(i)) for i in range(self.length))


class Shortcut(nnx.Module):
    """A block's input in the shape of its output."""

    def __init__(self, config: ResNetConfig, fan_in: int, fan_out: int, stride: int, *, init: Initializer) -> None:
        self.stride, self.more = stride, fan_out - fan_in
        pad = config.shortcut == "pad"
        side = 3 if config.shortcut == "conv3" else 1
        self.conv = None if pad else Conv(fan_in, fan_out, side, stride, init=init)
        self.norm = None if pad else _norm(config, fan_out, init)

    def __call__(self, x: Float[Array, "B h w C_in"], *, train: bool) -> Float[Array, "B h_out w_out C_out"]:
        if self.conv is not None and self.norm is not None:
            return self.norm(self.conv(x), train=train)
        before = self.more // 2
        return jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0),) * 3 + ((before, self.more - before),))


class Block(nnx.Module):
    """Two convolutions of 3 x 3 beside a shortcut; or 1 x 1, 3 x 3 and 1 x 1 to four times the channels."""

    def __init__(self, config: ResNetConfig, fan_in: int, channels: int, stride: int, *, init: Initializer) -> None:
        out = channels * (4 if config.bottleneck else 1)
        sides = (1, 3, 1) if config.bottleneck else (3, 3)
        strided = 1 if config.bottleneck else 0  # which convolution has the stride
        before, convs, norms = fan_in, [], []
        for i, side in enumerate(sides):
            after = out if i == len(sides) - 1 else channels
            convs.append(Conv(before, after, side, stride if i == strided else 1, init=init))
            norms.append(_norm(config, after, init))
            before = after
        self.convs, self.norms = Sequential(convs), Sequential(norms)
        same = fan_in == out and stride == 1
        self.shortcut = None if same else Shortcut(config, fan_in, out, stride, init=init)

    def __call__(self, x: Float[Array, "B h w C"], *, train: bool) -> Float[Array, "B h_out w_out C_out"]:
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(jax.nn.relu(y) if i else y), train=train)
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x, train=train)))


class ResNet(nnx.Module):
    """Logits of images."""

    def __init__(self, config: ResNetConfig, *, init: Initializer) -> None:
        self.config = config
        first = config.channels_of(0)
        self.stem = Conv(
            config.seen_channels, first, 7 if config.imagenet else 3, 2 if config.imagenet else 1, init=init
        )
        self.norm = _norm(config, first, init)
        before, stages = first, []
        for stage, count in enumerate(config.blocks):
            blocks, channels = [], config.channels_of(stage)
            for i in range(count):
                blocks.append(Block(config, before, channels, 2 if stage and not i else 1, init=init))
                before = channels * (4 if config.bottleneck else 1)
            stages.append(Sequential(blocks))
        self.stages = Sequential(stages)
        self.head = Dense(before, config.num_classes, init=init)
        bound = before**-0.5  # PyTorch's own
        self.head.kernel = nnx.Param(init.uniform(before, config.num_classes, bound=bound))
        self.head.bias = nnx.Param(init.uniform(config.num_classes, bound=bound))

    def __call__(
        self, images: Float[Array, "B H W C"], gate: Gate | None = None, *, train: bool = False, paths: None = None
    ) -> Float[Array, "B classes"]:
        """Logits, float32; the arguments are those of :meth:`features`."""
        return self.logits(self.features(images, gate, train=train, paths=paths))

    def features(
        self, images: Float[Array, "B H W C"], gate: Gate | None = None, *, train: bool = False, paths: None = None
    ) -> Float[Array, "B C_out"]:
        """What the head sees, float32: means over the image.

        Args:
          images: as the network sees them, see :class:`kind_jax.config.classifier.ClassifierConfig`.
          gate, paths: it has neither tailors nor stochastic depth.
          train: whether batches are normalised by themselves, and the statistics move.
        """
        del gate, paths
        return self.leave(self.through(self.enter(images, train=train), train=train))

    def enter(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Float[Array, "B h w C_0"]:
        """What the first stage sees."""
        moves = train and 0 not in self.config.settled_stages
        x = jax.nn.relu(self.norm(self.stem(images.astype(self.config.dtype)), train=moves))
        if self.config.imagenet:
            x = jax.lax.reduce_window(
                x, jnp.asarray(-jnp.inf, x.dtype), jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1),
                ((0, 0), (1, 1), (1, 1), (0, 0)),
            )  # fmt: skip
        return x

    def through(
        self, x: Float[Array, "B h w C"], gate: Gate | None = None, *, train: bool = False
    ) -> Float[Array, "B h_out w_out C_out"]:
        """``x`` after all stages that are held."""
        del gate
        for i, stage in enumerate(self.stages):
            for block in stage or ():
                x = block(x, train=train and i not in self.config.settled_stages)
        return x

    def leave(self, x: Float[Array, "B h w C"], *, train: bool = False) -> Float[Array, "B C"]:
        """The features of what the last stage gives."""
        del train
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))

    def keep(self, begin: int, end: int, count: int) -> None:
        """Hold no more than what lies between two places, see :mod:`kind_jax.nn.pieces`."""
        if begin > 0 or end == 0:
            drop(self, "stem", "norm")
        keep_stages(self.stages, begin, end)
        if end <= count + 1:
            drop(self, "head")

    def logits(self, features: Float[Array, "B C_out"]) -> Float[Array, "B classes"]:
        """Of what :meth:`features` gives, float32."""
        return self.head(features.astype(self.config.dtype)).astype(jnp.float32)


def _norm(config: ResNetConfig, channels: int, init: Initializer) -> BatchNorm:
    return BatchNorm(channels, eps=config.norm_eps, momentum=config.momentum, init=init)
