"""Projections: a plain dense layer and its factored, gated counterpart. Both are called as ``layer(x, gate)``.

Dimensions: B samples, T tokens, N_G learngenes, k groups that are on, N_T tailors of one group, G cohorts: samples in
a row that share their groups, or all B samples one by one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from kind_jax.config import Contraction, Energy, Form
from kind_jax.nn import cohorts
from kind_jax.nn.contraction import Order, choose
from kind_jax.nn.gate import Gate
from kind_jax.nn.init import Initializer
from kind_jax.nn.per_sample import low_rank
from kind_jax.nn.variables import Learngene, Tailor


def matmul(x: Float[Array, "*batch d_in"], kernel: Float[Array, "d_in d_out"]) -> Float[Array, "*batch d_out"]:
    """x @ kernel in x's dtype, over flattened tokens: on CPU a batched 3-D operand is 1.2 times slower."""
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]) @ kernel.astype(x.dtype)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def add_bias(y: Float[Array, "*batch d_out"], bias: Float[Array, " d_out"]) -> Float[Array, "*batch d_out"]:
    return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def scaled(y: Float[Array, "B *T d_out"], scale: Float[Array, "B d_out"] | None) -> Float[Array, "B *T d_out"]:
    return y if scale is None else y * scale.reshape(scale.shape[0], *(1,) * (y.ndim - 2), scale.shape[1])


class Dense(nnx.Module):
    """y = x W + b; ignores the gate."""

    def __init__(
        self, d_in: int, d_out: int, *, init: Initializer, zero: bool = False, stddev: float | None = None,
        bias: bool = True,
    ) -> None:  # fmt: skip
        """Xavier-uniform kernel, or normal with ``stddev``, or zeros; bias zero, or none."""
        if zero:
            kernel = init.zeros(d_in, d_out)
        elif stddev is not None:
            kernel = init.normal(d_in, d_out, stddev=stddev)
        else:
            kernel = init.xavier_uniform(d_in, d_out)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(init.zeros(d_out)) if bias else None

    def __call__(
        self,
        x: Float[Array, "B *T d_in"],
        gate: Gate | None = None,
        scale: Float[Array, "B d_out"] | None = None,
    ) -> Float[Array, "B *T d_out"]:
        """``scale``: factors on the outputs of each sample."""
        del gate
        y = matmul(x, self.kernel[...])
        return scaled(y if self.bias is None else add_bias(y, self.bias[...]), scale)


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
        form: Form,
        *,
        groups: int,
        init: Initializer,
        energy: Energy = "rescale",
        contraction: Contraction = "auto",
        zero: bool = False,
        bias: bool = True,
    ) -> None:
        """A weight of ``form`` for ``groups`` groups.

        Args:
          energy: how components begin, see :meth:`kind_jax.nn.init.Initializer.components`. Tailors beside a dense
            kernel begin silent (s = 0).
          contraction: the order of products, see :mod:`kind_jax.nn.contraction`.
          zero: whether W begins at 0.
          bias: whether there is one; it begins at 0.
        """
        # A dense kernel has every direction already, as would learngenes of full rank.
        learngenes = min(d_in, d_out) if form.shared is None else form.shared
        shared, own = init.components(
            d_in, d_out, learngenes=max(learngenes, 1), tailors=max(form.tailors, 1), groups=groups, energy=energy,
            zero=zero,
        )  # fmt: skip
        self.contraction: Contraction = contraction
        self.u, self.s, self.v = (Learngene(a) for a in shared) if form.shared else (None, None, None)
        self.u_t, self.s_t, self.v_t = (Tailor(a) for a in own) if form.tailors else (None, None, None)
        dense = form.shared is None
        make = init.zeros if zero else init.xavier_uniform
        self.kernel = nnx.Param(make(d_in, d_out)) if dense else None
        self.bias = nnx.Param(init.zeros(d_out)) if bias else None
        self.d_out = d_out

    def __call__(
        self, x: Float[Array, "B *T d_in"], gate: Gate, scale: Float[Array, "B d_out"] | None = None
    ) -> Float[Array, "B *T d_out"]:
        """``scale``: factors on the outputs of each sample."""
        own = self._own(gate, x.dtype)
        if own is not None and gate.by_cohort:
            return self._by_cohort(x, own, gate, scale)
        everyone = own is not None and own.u.shape[0] == 1  # one gate for all: its components join the shared ones
        y = self._shared(x, own if everyone else None)
        if y is None:  # nothing is shared
            y = jnp.zeros((*x.shape[:-1], self.d_out), x.dtype)
        y = scaled(y if self.bias is None else add_bias(y, self.bias[...]), scale)
        if own is None or everyone:
            return y
        if own.u.shape[0] != x.shape[0]:
            raise ValueError(f"the gate has {own.u.shape[0]} samples, but x has {x.shape[0]}; a gate has as many, or 1")
        # The few components are scaled instead of their many outputs, which the backward pass then need not keep.
        v = own.v if scale is None else own.v * scale[:, None, :]
        tokens = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
        return y + low_rank(tokens, own.u, own.s, v).reshape(y.shape)

    def _by_cohort(
        self, x: Float[Array, "B *T d_in"], own: Own, gate: Gate, scale: Float[Array, "B d_out"] | None
    ) -> Float[Array, "B *T d_out"]:
        """The same where cohorts share their components."""
        if x.shape[0] != gate.weight.shape[0]:
            raise ValueError(f"the gate has {gate.weight.shape[0]} samples, but x has {x.shape[0]}")
        B, d_in = x.shape[0], x.shape[-1]
        tokens = x.reshape(B, math.prod(x.shape[1:-1]), d_in)
        each = cohorts.Factors(jnp.swapaxes(own.u, 1, 2), own.s[:, :, None] * own.v)
        weight = jnp.repeat(gate.weight.astype(x.dtype), own.s.shape[1] // gate.weight.shape[1], axis=1)
        shared, always = None, self._components(x.dtype)
        if always is None or self._order(always, x) == "folded":
            shared, always = self._shared(x, None), None
        y = cohorts.low_rank(tokens, always, each, weight).reshape(*x.shape[:-1], self.d_out)
        y = y if shared is None else y + shared
        return scaled(y if self.bias is None else add_bias(y, self.bias[...]), scale)

    def _shared(self, x: Float[Array, "B *T d_in"], own: Own | None) -> Float[Array, "B *T d_out"] | None:
        """What applies to every sample: the dense kernel or the learngenes, and ``own`` (of all samples alike)."""
        more = None if own is None else (own.u[0].T, own.s[0][:, None] * own.v[0])
        if self.kernel is not None:
            kernel = self.kernel[...].astype(x.dtype)
            return matmul(x, kernel if more is None else kernel + more[0] @ more[1])
        if (always := self._components(x.dtype)) is not None:
            if more is None:
                more = always
            else:
                more = jnp.concatenate([always.u, more[0]], axis=1), jnp.concatenate([always.v, more[1]], axis=0)
        if more is None:
            return None
        left, right = more
        return matmul(x, left @ right) if self._order(more, x) == "folded" else matmul(matmul(x, left), right)

    def _components(self, dtype: jnp.dtype) -> cohorts.Factors | None:
        """The learngenes as two factors; None where there are none."""
        if self.u is None or self.s is None or self.v is None:
            return None
        # s goes into v: to scale [n, d_out] once is cheaper than to scale [rows, n] activations.
        return cohorts.Factors(self.u[...].astype(dtype), (self.s[...][:, None] * self.v[...]).astype(dtype))

    def _order(self, factors: tuple[Array, Array], x: Float[Array, "B *T d_in"]) -> Order:
        left, right = factors
        return choose(self.contraction, left.shape[0], left.shape[1], right.shape[1], math.prod(x.shape[:-1]))

    def _own(self, gate: Gate, dtype: jnp.dtype) -> Own | None:
        """The k groups of each sample side by side, as one low-rank weight of n = k N_T components."""
        if self.u_t is None or self.s_t is None or self.v_t is None:
            return None
        u, s, v = (self._rows(a[...], gate).astype(dtype) for a in (self.u_t, self.s_t, self.v_t))
        if not gate.by_cohort:
            s = s * gate.weight.astype(dtype)[:, :, None]
        batch, n = s.shape[0], s.shape[1] * s.shape[2]
        u = jnp.swapaxes(u, 2, 3).reshape(batch, n, u.shape[2])
        return Own(u, s.reshape(batch, n), v.reshape(batch, n, v.shape[3]))

    @staticmethod
    def _rows(bank: Float[Array, "groups ..."], gate: Gate) -> Float[Array, "G k ..."]:
        return bank[:, None] if gate.aligned else bank[gate.index]


class Own(NamedTuple):
    """The components that are on for each sample or cohort, or with a leading 1 for all samples alike."""

    u: Float[Array, "G n d_in"]
    s: Float[Array, "G n"]
    v: Float[Array, "G n d_out"]
