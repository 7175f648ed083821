"""The vision transformer (Dosovitskiy et al. 2021), with projections that may be factored and gated (KIND, 2025).

Dimensions: B samples, H = W image side, C channels, T tokens, D width, L blocks.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from kind_jax.config.networks import ViTConfig
from kind_jax.nn.attention import Projection, SelfAttention
from kind_jax.nn.embed import patchify
from kind_jax.nn.gate import Gate
from kind_jax.nn.init import Initializer
from kind_jax.nn.linear import Dense, FactoredDense
from kind_jax.nn.norm import LayerNorm
from kind_jax.nn.pieces import drop
from kind_jax.nn.stack import over_depth, stacks

_STDDEV = 0.02


class Block(nnx.Module):
    """Attention and MLP, each behind a norm and beside a shortcut."""

    def __init__(self, config: ViTConfig, index: int, *, init: Initializer) -> None:
        sizes, forms = config.projection_sizes, config.forms

        def make(name: str) -> Projection:
            form, bias = forms[f"{index}/{name}"], config.qkv_bias or name not in ("qkv", "q", "k", "v")
            if form.plain:
                return Dense(*sizes[name], init=init, stddev=_STDDEV, bias=bias)
            return FactoredDense(
                *sizes[name], form, groups=config.num_groups, energy=config.factor.energy,
                contraction=config.contraction, init=init, bias=bias,
            )  # fmt: skip

        self.norm_1 = LayerNorm(config.width, eps=config.norm_eps, init=init)
        self.attention = SelfAttention(
            {name: make(name) for name in sizes if name in ("qkv", "q", "k", "v")}, make("o"), config.heads
        )
        self.norm_2 = LayerNorm(config.width, eps=config.norm_eps, init=init)
        self.mlp_in, self.mlp_out = make("mlp_in"), make("mlp_out")

    def __call__(
        self, x: Float[Array, "B T D"], gate: Gate, paths: Float[Array, "B 2"] | None = None
    ) -> tuple[Float[Array, "B T D"], dict[str, Float[Array, "B T D"]]]:
        """The block's output, and the states of :meth:`ViT.seen`; ``paths``: factors on the branches of each sample."""
        attention, mlp = (None, None) if paths is None else (paths[:, 0, None], paths[:, 1, None])
        width = x.shape[-1]

        def scale(factor: Float[Array, "B 1"] | None) -> Float[Array, "B D"] | None:
            return None if factor is None else jnp.broadcast_to(factor, (len(x), width)).astype(x.dtype)

        middle = x + self.attention(self.norm_1(x), gate, scale(attention))
        h = jax.nn.gelu(self.mlp_in(self.norm_2(middle), gate), approximate=False)
        x = middle + self.mlp_out(h, gate, scale(mlp))
        return x, {"attention": middle, "mlp": x}


class ViT(nnx.Module):
    """Logits of images."""

    def __init__(self, config: ViTConfig, *, init: Initializer) -> None:
        self.config = config
        d_in = config.patch * config.patch * config.seen_channels
        self.patch_embed = Dense(d_in, config.width, init=init)
        bound = d_in**-0.5  # a convolution's own initialisation in PyTorch, which the reference code leaves in place
        self.patch_embed.kernel = nnx.Param(init.uniform(d_in, config.width, bound=bound))
        self.patch_embed.bias = nnx.Param(init.uniform(config.width, bound=bound))
        token = config.pool == "token"
        self.class_token = nnx.Param(init.normal(config.width, stddev=_STDDEV)) if token else None
        self.position = nnx.Param(init.normal(config.tokens, config.width, stddev=_STDDEV))
        self.blocks = stacks(lambda: Block(config, 0, init=init), config.stacks)
        self.norm = LayerNorm(config.width, eps=config.norm_eps, init=init)
        self.head = Dense(config.width, config.num_classes, init=init, stddev=_STDDEV)

    def __call__(
        self,
        images: Float[Array, "B H W C"],
        gate: Gate,
        *,
        train: bool = False,
        paths: Float[Array, "L B 2"] | None = None,
    ) -> Float[Array, "B classes"]:
        """Logits, float32; the arguments are those of :meth:`features`."""
        return self.logits(self.features(images, gate, train=train, paths=paths))

    def features(
        self,
        images: Float[Array, "B H W C"],
        gate: Gate,
        *,
        train: bool = False,
        paths: Float[Array, "L B 2"] | None = None,
    ) -> Float[Array, "B D"]:
        """What the head sees.

        Args:
          images: as the network sees them, see :class:`kind_jax.config.classifier.ClassifierConfig`.
          gate: which tailors are on.
          train: makes no difference.
          paths: factors on the residual branches of each block and sample, for stochastic depth.
        """
        del train
        return self.leave(self.through(self.enter(images), gate, paths=paths))

    def enter(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Float[Array, "B T D"]:
        """What the first block sees."""
        del train
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        x = self.patch_embed(patchify(images.astype(dtype), config.patch))
        if self.class_token is not None:
            token = jnp.broadcast_to(self.class_token[...].astype(dtype)[None, None, :], (len(x), 1, config.width))
            x = jnp.concatenate([token, x], axis=1)
        return x + self.position[...].astype(dtype)[None]

    def through(
        self, x: Float[Array, "B T D"], gate: Gate, *, train: bool = False, paths: Float[Array, "L B 2"] | None = None
    ) -> Float[Array, "B T D"]:
        """``x`` after all blocks."""
        del train
        return x if self.blocks is None else self._blocks(x, gate, paths, see=False)[0]

    def seen(
        self, images: Float[Array, "B H W C"], gate: Gate, *, paths: Float[Array, "L B 2"] | None = None
    ) -> tuple[Float[Array, "B D"], dict[str, Float[Array, "L B T D"]]]:
        """As :meth:`features`, and the tokens of every block after its branches ``attention`` and ``mlp``."""
        x, states = self._blocks(self.enter(images), gate, paths, see=True)
        return self.leave(x), states

    def _blocks(self, x: Float[Array, "B T D"], gate: Gate, paths: Float[Array, "L B 2"] | None, *, see: bool) -> Any:
        def call(block: Block, x: Float[Array, "B T D"], gate: Gate, paths: Float[Array, "B 2"] | None) -> Any:
            x, states = block(x, gate, paths)
            return x, states if see else None

        return over_depth(
            self.blocks, x, gate, call, each=paths, unroll=self.config.scan_unroll, remat=self.config.remat
        )

    def leave(self, x: Float[Array, "B T D"], *, train: bool = False) -> Float[Array, "B D"]:
        """The features of what the last block gives."""
        del train
        x = self.norm(x)
        return x[:, 0] if self.config.pool == "token" else jnp.mean(x, axis=1)

    def keep(self, begin: int, end: int, count: int) -> None:
        """Hold no more than what lies between two places, see :mod:`kind_jax.nn.pieces`; all blocks or none."""
        if begin > 0 or end == 0:
            drop(self, "patch_embed", "class_token", "position")
        if min(end, count) <= begin:
            drop(self, "blocks")
        if not begin <= count < end:
            drop(self, "norm")
        if end <= count + 1:
            drop(self, "head")

    def logits(self, features: Float[Array, "B D"]) -> Float[Array, "B classes"]:
        """Of what :meth:`features` gives, float32."""
        return self.head(features.astype(self.config.dtype)).astype(jnp.float32)
