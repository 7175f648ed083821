"""What the autoencoder is made of. Tensors are NHWC, kernels HWIO.

A layer computes in the dtype of its input. float32 means float32: TF32 and bfloat16 products are for who asks for them.
Attribute names follow diffusers', so that names of weights hardly need a translation (weights.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from kind_jax.nn.init import Initializer

_EPSILON = 1e-6  # of every group normalisation; PyTorch's default would be 1e-5


def _precision(x: Array) -> jax.lax.Precision:
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else jax.lax.Precision.DEFAULT


class Conv(nnx.Module):
    """A square convolution that keeps the size, or halves it."""

    def __init__(self, d_in: int, d_out: int, side: int = 3, *, halve: bool = False, init: Initializer) -> None:
        self.kernel = nnx.Param(init.normal(side, side, d_in, d_out, stddev=(side * side * d_in) ** -0.5))
        self.bias = nnx.Param(init.zeros(d_out))
        self.halve = halve

    def __call__(self, x: Float[Array, "B H W d_in"]) -> Float[Array, "B h w d_out"]:
        # Halving pads below and to the right alone, as the VAE of Latent Diffusion does: ((0, 1), (0, 1)).
        kernel = self.kernel[...].astype(x.dtype)
        around = (kernel.shape[0] - 1) // 2
        padding = (0, 1) if self.halve else (around, around)
        stride = 2 if self.halve else 1
        y = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), (padding, padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=_precision(x),
        )  # fmt: skip
        return y + self.bias[...].astype(x.dtype)[None, None, None, :]


class GroupNorm(nnx.Module):
    """Group normalisation (Wu & He, 2018) with its statistics in float32."""

    def __init__(self, width: int, groups: int, *, init: Initializer) -> None:
        self.scale = nnx.Param(1 + init.zeros(width))
        self.bias = nnx.Param(init.zeros(width))
        self.groups = groups

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        B, H, W, C = x.shape
        y = x.astype(jnp.float32).reshape(B, H * W, self.groups, C // self.groups)
        y = y - jnp.mean(y, axis=(1, 3), keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=(1, 3), keepdims=True) + _EPSILON)
        y = y.reshape(B, H, W, C) * self.scale[...][None, None, None, :] + self.bias[...][None, None, None, :]
        return y.astype(x.dtype)


class Linear(nnx.Module):
    """A product over channels."""

    def __init__(self, width: int, *, init: Initializer) -> None:
        self.kernel = nnx.Param(init.normal(width, width, stddev=width**-0.5))
        self.bias = nnx.Param(init.zeros(width))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        y = jnp.matmul(x, self.kernel[...].astype(x.dtype), precision=_precision(x))
        return y + self.bias[...].astype(x.dtype)[None, None, :]


class ResnetBlock(nnx.Module):
    """Norm, SiLU and convolution, twice, beside a shortcut that is 1x1 where the width changes."""

    def __init__(self, d_in: int, d_out: int, groups: int, *, init: Initializer) -> None:
        self.norm1 = GroupNorm(d_in, groups, init=init)
        self.conv1 = Conv(d_in, d_out, init=init)
        self.norm2 = GroupNorm(d_out, groups, init=init)
        self.conv2 = Conv(d_out, d_out, init=init)
        self.conv_shortcut = Conv(d_in, d_out, 1, init=init) if d_in != d_out else None

    def __call__(self, x: Float[Array, "B H W d_in"]) -> Float[Array, "B H W d_out"]:
        y = self.conv1(jax.nn.silu(self.norm1(x)))
        y = self.conv2(jax.nn.silu(self.norm2(y)))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nnx.Module):
    """Attention of one head over all places, added to its input."""

    def __init__(self, width: int, groups: int, *, init: Initializer) -> None:
        self.norm = GroupNorm(width, groups, init=init)
        self.q, self.k, self.v, self.out = (Linear(width, init=init) for _ in range(4))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        B, H, W, C = x.shape
        tokens = self.norm(x).reshape(B, H * W, C)
        q, k, v = self.q(tokens), self.k(tokens), self.v(tokens)
        scores = jnp.einsum("btc,bsc->bts", q, k, precision=_precision(x)).astype(jnp.float32)
        weights = jax.nn.softmax(scores * C**-0.5).astype(x.dtype)
        mixed = jnp.einsum("bts,bsc->btc", weights, v, precision=_precision(x))
        return x + self.out(mixed).reshape(B, H, W, C)


class Numbered(nnx.Module):
    """Modules in a row as attributes "0", "1", ...: an nnx.List would have numbers in its paths."""

    def __init__(self, modules: Sequence[nnx.Module]) -> None:
        self.count = len(modules)
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __call__(self, x: Float[Array, "B H W d_in"]) -> Float[Array, "B h w d_out"]:
        for i in range(self.count):
            x = getattr(self, str(i))(x)
        return x


class MidBlock(nnx.Module):
    """Two residual blocks, with attention between them."""

    def __init__(self, width: int, groups: int, *, attention: bool, init: Initializer) -> None:
        self.resnets = Numbered([ResnetBlock(width, width, groups, init=init) for _ in range(2)])
        self.attention = Attention(width, groups, init=init) if attention else None

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        first, second = (getattr(self.resnets, str(i)) for i in range(2))
        x = first(x)
        return second(x if self.attention is None else self.attention(x))
