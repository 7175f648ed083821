"""Normalisation with a scale and an offset that train. B: samples, C: features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from kind_jax.nn.init import Initializer


class LayerNorm(nnx.Module):
    """Over the features of each token (Ba et al. 2016), in float32."""

    def __init__(self, features: int, *, eps: float, init: Initializer) -> None:
        self.eps = eps
        self.scale, self.bias = nnx.Param(init.ones(features)), nnx.Param(init.zeros(features))

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (y * _last(self.scale[...], y.ndim) + _last(self.bias[...], y.ndim)).astype(x.dtype)


class BatchNorm(nnx.Module):
    """Over all samples and places of each channel (Ioffe & Szegedy 2015), in float32.

    ``mean`` and ``var`` follow the moments of the batches and stand in for them after training. As in PyTorch, a batch
    is normalised with its variance, and the running one follows the unbiased estimate, n / (n - 1) times as large. On
    several devices the moments are those of the whole batch.
    """

    def __init__(self, channels: int, *, eps: float, momentum: float, init: Initializer, zero: bool = False) -> None:
        """``momentum``: share of the batch in the running moments. ``zero``: whether the scale begins at 0."""
        self.eps, self.momentum = eps, momentum
        self.scale = nnx.Param(init.zeros(channels) if zero else init.ones(channels))
        self.bias = nnx.Param(init.zeros(channels))
        self.mean, self.var = nnx.BatchStat(init.zeros(channels)), nnx.BatchStat(init.ones(channels))

    def __call__(self, x: Float[Array, "*B C"], *, train: bool) -> Float[Array, "*B C"]:
        """``train``: normalise by the batch, and let the running moments follow it."""
        y = x.astype(jnp.float32)
        if train:
            axes, count = tuple(range(y.ndim - 1)), y.size // y.shape[-1]
            mean = jnp.mean(y, axes)
            var = jnp.maximum(jnp.mean(y * y, axes) - mean * mean, 0.0)
            unbiased = jax.lax.stop_gradient(var) * (count / max(count - 1, 1))
            self.mean[...] += self.momentum * (jax.lax.stop_gradient(mean) - self.mean[...])
            self.var[...] += self.momentum * (unbiased - self.var[...])
        else:
            mean, var = self.mean[...], self.var[...]
        factor = jax.lax.rsqrt(var + self.eps) * self.scale[...]
        return ((y - _last(mean, y.ndim)) * _last(factor, y.ndim) + _last(self.bias[...], y.ndim)).astype(x.dtype)


def _last(values: Float[Array, " C"], ndim: int) -> Float[Array, ...]:
    return values.reshape((1,) * (ndim - 1) + (-1,))
