"""The layer of a text decoder: masked self-attention, attention to an image where it sees one, and MLPs.

Dimensions: B samples, T tokens, S tokens of an image, D width, M features of an image's token.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from kind_jax.config.coca import TowerConfig
from kind_jax.nn.attention import CrossAttention, Kept, SelfAttention
from kind_jax.nn.gate import learngenes_only
from kind_jax.nn.init import Initializer
from kind_jax.nn.linear import Dense
from kind_jax.nn.norm import LayerNorm

STDDEV = 0.02

Activation = Literal["gelu", "quick_gelu"]


class MLP(nnx.Module):
    """Two dense layers behind a norm."""

    def __init__(self, tower: TowerConfig, activation: Activation, *, eps: float, init: Initializer) -> None:
        self.activation: Activation = activation
        self.norm = LayerNorm(tower.width, eps=eps, init=init)
        self.mlp_in = Dense(tower.width, tower.mlp, init=init, stddev=STDDEV)
        self.mlp_out = Dense(tower.mlp, tower.width, init=init, stddev=STDDEV)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        h = self.mlp_in(self.norm(x))
        h = jax.nn.gelu(h, approximate=False) if self.activation == "gelu" else h * jax.nn.sigmoid(1.702 * h)
        return self.mlp_out(h)


class Layer(nnx.Module):
    """Branches beside shortcuts, each behind a norm: self-attention, cross-attention and MLP.

    Cross-attention may have an MLP in front of it, too, and a norm on what it attends to.
    """

    def __init__(
        self,
        tower: TowerConfig,
        *,
        init: Initializer,
        activation: Activation,
        eps: float,
        cross: Literal["none", "paper", "open_clip"] = "none",
    ) -> None:
        """``cross``: whether it attends to an image, see :class:`kind_jax.config.coca.CoCaConfig`."""
        width = tower.width
        self.norm = LayerNorm(width, eps=eps, init=init)
        qkv, o = (Dense(width, n * width, init=init, stddev=STDDEV) for n in (3, 1))
        self.attention = SelfAttention({"qkv": qkv}, o, tower.heads)
        self.first = MLP(tower, activation, eps=eps, init=init) if cross == "open_clip" else None
        self.norm_memory = LayerNorm(width, eps=eps, init=init) if cross == "open_clip" else None
        self.norm_cross = LayerNorm(width, eps=eps, init=init) if cross != "none" else None
        self.cross = CrossAttention(width, width, tower.heads, init=init, stddev=STDDEV) if cross != "none" else None
        self.last = MLP(tower, activation, eps=eps, init=init)

    def __call__(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "_ _ T"] | None, memory: Float[Array, "B S D"] | None = None
    ) -> Float[Array, "B T D"]:
        """``mask``: which tokens each token sees; ``memory``: tokens of an image."""
        x = x + self.attention(self.norm(x), learngenes_only(), mask=mask)
        return self._after(x, None if memory is None else self.keep(memory))

    def keep(self, memory: Float[Array, "B S D"]) -> Kept:
        """What cross-attention keeps of an image, which all tokens of its captions attend to."""
        assert self.cross is not None
        return self.cross.keep(memory if self.norm_memory is None else self.norm_memory(memory))

    def step(
        self, x: Float[Array, "B 1 D"], own: Kept, memory: Kept | None, position: Int[Array, ""]
    ) -> tuple[Float[Array, "B 1 D"], Kept]:
        """The layer at one position of a caption that is being written.

        Args:
          own: keys and values of the tokens so far.
          memory: what :meth:`keep` gave.
        """
        found, own = self.attention.step(self.norm(x), learngenes_only(), own, position)
        return self._after(x + found, memory), own

    def _after(self, x: Float[Array, "B T D"], memory: Kept | None) -> Float[Array, "B T D"]:
        if self.first is not None:
            x = x + self.first(x)
        if self.cross is not None and self.norm_cross is not None and memory is not None:
            x = x + self.cross(self.norm_cross(x), memory)
        return x + self.last(x)


class Pooler(nnx.Module):
    """Queries that train attend to tokens: as many tokens come out, whatever the number that went in (CoCa §3.2)."""

    def __init__(self, queries: int, width: int, memory: int, heads: int, *, eps: float, init: Initializer) -> None:
        self.query = nnx.Param(init.normal(queries, width, stddev=STDDEV))
        self.norm_query = LayerNorm(width, eps=eps, init=init)
        self.norm_memory = LayerNorm(memory, eps=eps, init=init)
        self.attention = CrossAttention(width, memory, heads, init=init, stddev=STDDEV)
        self.norm = LayerNorm(width, eps=eps, init=init)

    def __call__(self, memory: Float[Array, "B S M"], valid: Bool[Array, "B S"] | None = None) -> Float[Array, "B Q D"]:
        """``valid``: the tokens that are attended to; None: all."""
        query = self.norm_query(self.query[...].astype(memory.dtype))
        query = jnp.broadcast_to(query[None], (len(memory), *query.shape))
        kept, mask = self.attention.keep(self.norm_memory(memory)), None if valid is None else valid[:, None, :]
        return self.norm(self.attention(query, kept, mask))
