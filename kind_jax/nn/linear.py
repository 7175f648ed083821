"""Projections: a plain dense layer and its factored, gated counterpart. Both are called as ``layer(x, gate)``.

Dimensions: B samples, T tokens, N_G learngenes, k groups that are on, N_T tailors of one group.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from kind_jax.config import FactorConfig, Form, ModelConfig
from kind_jax.nn.gate import Gate
from kind_jax.nn.init import Components, Initializer
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
    """y = x W(gate) + b, the sum of a part that is always on and of the gated groups' tailors (KIND, 2025).

    Both are U diag(s) V, but the part that is always on may also be a dense kernel, and either may be absent: what a
    form does not have is None. The tailors of a sample's groups are gathered, so the cost does not depend on how many
    groups the bank holds, and the gradient of a group that no sample switches on is exactly zero.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        config: ModelConfig,
        *,
        init: Initializer,
        zero: bool = False,
        form: Form | None = None,
    ) -> None:
        """``form`` None is learngenes and tailors as the config has them."""
        if form is None:
            form = Form(shared=config.learngenes, tailors=config.tailors)
        shared, own = _components(d_in, d_out, form, config, init=init, zero=zero)
        self.u, self.s, self.v = (Learngene(a) for a in shared) if form.shared else (None, None, None)
        self.u_t, self.s_t, self.v_t = (Tailor(a) for a in own) if form.tailors else (None, None, None)
        dense = form.shared is None
        make = init.zeros if zero else init.xavier_uniform
        self.kernel = nnx.Param(make(d_in, d_out)) if dense else None
        self.bias = nnx.Param(init.zeros(d_out))

    def __call__(self, x: Float[Array, "B *T d_in"], gate: Gate) -> Float[Array, "B *T d_out"]:
        y = self._shared(x)
        if self.u_t is not None:
            own = self._tailored(x, gate)
            y = own if y is None else y + own
        if y is None:  # a weight of rank 0
            y = jnp.zeros((*x.shape[:-1], self.bias[...].shape[-1]), x.dtype)
        return add_bias(y, self.bias[...])

    def _shared(self, x: Float[Array, "B *T d_in"]) -> Float[Array, "B *T d_out"] | None:
        if self.kernel is not None:
            return matmul(x, self.kernel[...])
        if self.u is None or self.s is None or self.v is None:
            return None
        h = matmul(x, self.u[...])
        return matmul(h * self._align(self.s[...], x.ndim, x.dtype), self.v[...])

    @staticmethod
    def _align(scale: Float[Array, " n"], ndim: int, dtype: jnp.dtype) -> Float[Array, ...]:
        return scale.astype(dtype).reshape((1,) * (ndim - 1) + (-1,))

    def _tailored(self, x: Float[Array, "B *T d_in"], gate: Gate) -> Float[Array, "B *T d_out"]:
        assert self.u_t is not None
        assert self.s_t is not None
        assert self.v_t is not None
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


def _components(
    d_in: int, d_out: int, form: Form, config: ModelConfig, *, init: Initializer, zero: bool
) -> tuple[Components, Components]:
    """Initial components of a weight of this form; tailors beside a dense kernel start silent (s = 0)."""
    # The kernel has every direction already, as would learngenes of full rank.
    shared = min(d_in, d_out) if form.shared is None else form.shared
    if (shared, form.tailors) != (config.learngenes, config.tailors):
        factor = FactorConfig(learngenes=max(shared, 1), tailors=max(form.tailors, 1), energy=config.factor.energy)
        config = dataclasses.replace(config, factor=factor)
    return init.components(d_in, d_out, config, zero=zero)
