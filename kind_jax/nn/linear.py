"""Projections: a plain dense layer and its factored, gated counterpart. Both are called as ``layer(x, gate)``.

Dimensions: B samples, T tokens, N_G learngenes, k groups that are on, N_T tailors of one group.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from kind_jax.config import ModelConfig
from kind_jax.nn.gate import Gate
from kind_jax.nn.init import Initializer
from kind_jax.nn.variables import Learngene, Tailor


def matmul(x: Float[Array, "*batch d_in"], kernel: Float[Array, "d_in d_out"]) -> Float[Array, "*batch d_out"]:
    """x @ kernel in x's dtype, over flattened tokens: on CPU a batched 3-D operand is 1.2 times slower."""
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]) @ kernel.astype(x.dtype)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def add_bias(y: Float[Array, "*batch d_out"], bias: Float[Array, " d_out"]) -> Float[Array, "*batch d_out"]:
    return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class Dense(nnx.Module):
    """y = x W + b; ignores the gate."""

    def __init__(
        self, d_in: int, d_out: int, *, init: Initializer, zero: bool = False, stddev: float | None = None
    ) -> None:
        """Xavier-uniform kernel, or normal with ``stddev``, or zeros; bias zero."""
        if zero:
            kernel = init.zeros(d_in, d_out)
        elif stddev is not None:
            kernel = init.normal(d_in, d_out, stddev=stddev)
        else:
            kernel = init.xavier_uniform(d_in, d_out)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(init.zeros(d_out))

    def __call__(self, x: Float[Array, "*batch d_in"], gate: Gate | None = None) -> Float[Array, "*batch d_out"]:
        del gate
        return add_bias(matmul(x, self.kernel[...]), self.bias[...])


class FactoredDense(nnx.Module):
    """y = x W(gate) + b with W = U diag(s) V, a sum of learngenes and of the gated groups' tailors (KIND, 2025).

    The tailors of a sample's groups are gathered, so the cost does not depend on how many groups the bank holds, and
    the gradient of a group that no sample switches on is exactly zero.
    """

    def __init__(self, d_in: int, d_out: int, config: ModelConfig, *, init: Initializer, zero: bool = False) -> None:
        shared, own = init.components(d_in, d_out, config, zero=zero)
        self.u, self.s, self.v = (Learngene(a) for a in shared)
        self.u_t, self.s_t, self.v_t = (Tailor(a) for a in own)
        self.bias = nnx.Param(init.zeros(d_out))

    def __call__(self, x: Float[Array, "B *T d_in"], gate: Gate) -> Float[Array, "B *T d_out"]:
        h = matmul(x, self.u[...])
        y = matmul(h * self._align(self.s[...], x.ndim, x.dtype), self.v[...])
        return add_bias(y + self._tailored(x, gate), self.bias[...])

    @staticmethod
    def _align(scale: Float[Array, " n"], ndim: int, dtype: jnp.dtype) -> Float[Array, ...]:
        return scale.astype(dtype).reshape((1,) * (ndim - 1) + (-1,))

    def _tailored(self, x: Float[Array, "B *T d_in"], gate: Gate) -> Float[Array, "B *T d_out"]:
        u, s, v = (a[...][gate.index].astype(x.dtype) for a in (self.u_t, self.s_t, self.v_t))
        s = s * gate.weight.astype(x.dtype)[:, :, None]
        batch, k, d_in, n = u.shape
        # The k groups of a sample side by side are one low-rank layer of rank k * n.
        u = jnp.moveaxis(u, 1, 2).reshape(batch, d_in, k * n)
        s, v = s.reshape(batch, k * n), v.reshape(batch, k * n, v.shape[-1])
        if batch == 1:
            return matmul(matmul(x, u[0]) * self._align(s[0], x.ndim, x.dtype), v[0])
        if batch != x.shape[0]:
            raise ValueError(f"the gate has {batch} samples, but x has {x.shape[0]}; a gate has as many, or 1")
        tokens = x.reshape(batch, math.prod(x.shape[1:-1]), d_in)
        y = jnp.einsum("btn,bno->bto", jnp.einsum("btd,bdn->btn", tokens, u) * s[:, None, :], v)
        return y.reshape(*x.shape[:-1], y.shape[-1])
