"""Multi-head attention: over the tokens themselves, through gated projections, or over those of another sequence.

Dimensions: B samples, T tokens, S tokens that are attended to, H heads, d features of one head, D = H d.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from kind_jax.nn.gate import Gate
from kind_jax.nn.init import Initializer
from kind_jax.nn.linear import Dense, FactoredDense

Projection = Dense | FactoredDense


def dot_product_attention(
    q: Float[Array, "B T H d"],
    k: Float[Array, "B S H d"],
    v: Float[Array, "B S H d"],
    mask: Bool[Array, "_ _ S"] | None = None,
) -> Float[Array, "B T H d"]:
    """softmax(q kᵀ / √d) v; fused kernels where the platform has them, a hand-written backward pass on CPU.

    Args:
      mask: [B or 1, T or 1, S], which tokens each token sees; at least one. None: all.
    """
    if jax.default_backend() != "cpu":
        return jax.nn.dot_product_attention(
            q, k, v, mask=None if mask is None else mask[:, None],
            implementation=implementation(
                jax.devices()[0], q.dtype, q.shape[-1], () if mask is None else (q.shape[1], k.shape[1])
            ),
        )  # fmt: skip
    B, T, H, d = q.shape
    merged = (jnp.moveaxis(a, 2, 1).reshape(B * H, a.shape[1], d) for a in (q, k, v))
    seen = None
    if mask is not None:
        seen = jnp.broadcast_to(mask[:, None], (B, H, T, mask.shape[-1])).reshape(B * H, T, mask.shape[-1])
    return jnp.moveaxis(_attend(*merged, seen).reshape(B, H, T, d), 1, 2)


def implementation(
    device: Any, dtype: jnp.dtype, features: int, masked: tuple[int, ...] = ()
) -> Literal["cudnn", "xla"]:
    """cuDNN's fused attention where it exists: 16-bit heads of up to 128 features on NVIDIA chips since Ampere.

    JAX does not choose it by itself.

    Args:
      masked: T and S where there is a mask, which cuDNN differentiates for even lengths alone.
    """
    capability = str(getattr(device, "compute_capability", ""))  # "9.0"; AMD's are names like gfx942
    nvidia = device.platform in ("gpu", "cuda") and capability.replace(".", "").isdecimal()
    fits = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16) and features <= 128 and features % 8 == 0
    even = not any(length % 2 for length in masked)
    return "cudnn" if nvidia and float(capability) >= 8 and fits and even else "xla"


@jax.custom_vjp
def _attend(
    q: Float[Array, "N T d"], k: Float[Array, "N S d"], v: Float[Array, "N S d"], mask: Bool[Array, "N T S"] | None
) -> Float[Array, "N T d"]:
    return _attend_forward(q, k, v, mask)[0]


def _attend_forward(q, k, v, mask):
    scores = jnp.einsum("nqd,nkd->nqk", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    p = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("nqk,nkd->nqd", p, v), (q, k, v, p)


def _attend_backward(residuals, do):
    # Keeping the probabilities and one batch dimension is what makes this 1.3 times faster than XLA:CPU's own.
    q, k, v, p = residuals
    dv = jnp.einsum("nqk,nqd->nkd", p, do)
    dp = jnp.einsum("nqd,nkd->nqk", do, v)
    ds = p * (dp - jnp.sum(dp * p, axis=-1, keepdims=True)) * q.shape[-1] ** -0.5
    return jnp.einsum("nqk,nkd->nqd", ds, k), jnp.einsum("nqk,nqd->nkd", ds, q), dv, None


_attend.defvjp(_attend_forward, _attend_backward)


class SelfAttention(nnx.Module):
    """Attention whose projections are given: one fused ``qkv`` [D, 3 D] (q | k | v, each head-major) or q, k and v."""

    def __init__(self, projections: dict[str, Projection], out: Projection, heads: int) -> None:
        self.heads = heads
        # Each projection is an attribute of its own name, so that paths read `attention/qkv/...`; absent ones are None.
        self.qkv, self.q, self.k, self.v = (projections.get(name) for name in ("qkv", "q", "k", "v"))
        self.o = out

    def __call__(
        self,
        x: Float[Array, "B T D"],
        gate: Gate,
        scale: Float[Array, "B D"] | None = None,
        mask: Bool[Array, "_ _ T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """``scale``: factors on the outputs of each sample; ``mask``: see :func:`dot_product_attention`."""
        q, k, v = self._heads(x, gate)
        return self.o(dot_product_attention(q, k, v, mask).reshape(x.shape), gate, scale)

    def step(
        self, x: Float[Array, "B 1 D"], gate: Gate, kept: Kept, position: Int[Array, ""]
    ) -> tuple[Float[Array, "B 1 D"], Kept]:
        """What the token at ``position`` makes of itself and those before it, whose keys and values are ``kept``."""
        q, k, v = self._heads(x, gate)
        kept = Kept(
            *(jax.lax.dynamic_update_slice_in_dim(a, b, position, 1) for a, b in zip(kept, (k, v), strict=True))
        )
        earlier = (jnp.arange(kept.k.shape[1]) <= position)[None, None, :]
        return self.o(dot_product_attention(q, kept.k, kept.v, earlier).reshape(x.shape), gate), kept

    def _heads(self, x: Float[Array, "B T D"], gate: Gate) -> list[Float[Array, "B T H d"]]:
        B, T, D = x.shape
        if self.qkv is not None:
            q, k, v = jnp.split(self.qkv(x, gate), 3, axis=-1)
        else:
            assert self.q is not None
            assert self.k is not None
            assert self.v is not None
            q, k, v = self.q(x, gate), self.k(x, gate), self.v(x, gate)
        return [a.reshape(B, T, self.heads, D // self.heads) for a in (q, k, v)]


class Kept(NamedTuple):
    """Keys and values of tokens, for others to attend to."""

    k: Float[Array, "*L B S H d"]
    v: Float[Array, "*L B S H d"]


class CrossAttention(nnx.Module):
    """Attention of D features to tokens of another sequence, of M features."""

    def __init__(self, width: int, memory: int, heads: int, *, init: Initializer, stddev: float) -> None:
        self.heads = heads
        self.q = Dense(width, width, init=init, stddev=stddev)
        self.kv = Dense(memory, 2 * width, init=init, stddev=stddev)
        self.o = Dense(width, width, init=init, stddev=stddev)

    def keep(self, memory: Float[Array, "B S M"]) -> Kept:
        """Keys and values of the tokens that are attended to."""
        B, S, _ = memory.shape
        return Kept(*(a.reshape(B, S, self.heads, -1) for a in jnp.split(self.kv(memory), 2, axis=-1)))

    def __call__(
        self, x: Float[Array, "B T D"], kept: Kept, mask: Bool[Array, "_ _ S"] | None = None
    ) -> Float[Array, "B T D"]:
        """``kept``: of B samples; or of fewer, each of which as many consecutive ones of ``x`` attend to. ``mask``: see
        :func:`dot_product_attention`."""
        q = self.q(x).reshape(len(kept.k), -1, self.heads, x.shape[-1] // self.heads)
        return self.o(dot_product_attention(q, *kept, mask).reshape(x.shape))
