"""The diffusion transformer with gated, factored projections (DiT, Peebles & Xie 2023; KIND, ICML 2025).

Dimensions: B samples, H = W image side, C channels, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from kind_jax import partition
from kind_jax.config import ModelConfig
from kind_jax.nn.activation import gelu
from kind_jax.nn.attention import Projection, SelfAttention
from kind_jax.nn.embed import LabelEmbedding, TimeEmbedding, patchify, position_embedding, unpatchify
from kind_jax.nn.gate import Gate
from kind_jax.nn.init import Initializer
from kind_jax.nn.linear import Dense, FactoredDense
from kind_jax.nn.route import Route
from kind_jax.nn.stack import between, only_rows_in_use, over_depth, stacks

States = dict[str, Float[Array, "..."]]
"""What blocks let be seen, by name, see :meth:`DiT.seen`."""


def layer_norm(x: Float[Array, "B T D"], eps: float = 1e-6) -> Float[Array, "B T D"]:
    """Normalise over features without scale or offset, in float32 (adaLN supplies both)."""
    y = x.astype(jnp.float32)
    y = y - jnp.mean(y, axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)
    return y.astype(x.dtype)


def modulate(x: Float[Array, "B T D"], shift: Float[Array, "B D"], scale: Float[Array, "B D"]) -> Float[Array, "B T D"]:
    return x * (1 + scale[:, None, :]) + shift[:, None, :]


class Block(nnx.Module):
    """Attention and MLP, modulated by the conditioning vector through adaLN-zero."""

    def __init__(self, config: ModelConfig, index: int, *, init: Initializer) -> None:
        sizes, forms = config.projection_sizes, config.forms
        self.mlp_norm_eps = config.mlp_norm_eps

        def make(name: str) -> Projection:
            zero, form = name == "adaln", forms[f"{index}/{name}"]
            if form.plain:
                return Dense(*sizes[name], init=init, zero=zero)
            return FactoredDense(
                *sizes[name], form, groups=config.num_groups, energy=config.factor.energy,
                contraction=config.contraction, init=init, zero=zero,
            )  # fmt: skip

        inputs = {n: make(n) for n in sizes if n in ("qkv", "q", "k", "v")}
        self.attention = SelfAttention(inputs, make("o"), config.heads)
        self.mlp_in, self.mlp_out, self.adaln = make("mlp_in"), make("mlp_out"), make("adaln")

    def __call__(
        self, x: Float[Array, "B T D"], c: Float[Array, "B D"], gate: Gate
    ) -> tuple[Float[Array, "B T D"], States]:
        """The block's output, and the states of :meth:`DiT.seen`."""
        modulation = self.adaln(jax.nn.silu(c), gate)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(modulation, 6, axis=-1)
        middle = x + self.attention(modulate(layer_norm(x), shift_a, scale_a), gate, gate_a)
        h = self.mlp_in(modulate(layer_norm(middle, self.mlp_norm_eps), shift_m, scale_m), gate)
        x = middle + self.mlp_out(gelu(h), gate, gate_m)
        return x, {"attention": middle, "mlp": x, "adaln": modulation[:, None]}


class FinalLayer(nnx.Module):
    """Modulated norm and a zero-initialised projection to patches."""

    def __init__(self, width: int, patch_features: int, *, init: Initializer) -> None:
        self.adaln = Dense(width, 2 * width, init=init, zero=True)
        self.linear = Dense(width, patch_features, init=init, zero=True)

    def __call__(self, x: Float[Array, "B T D"], c: Float[Array, "B D"]) -> Float[Array, "B T P"]:
        shift, scale = jnp.split(self.adaln(jax.nn.silu(c)), 2, axis=-1)
        return self.linear(modulate(layer_norm(x), shift, scale))


class Blocks(nnx.Module):
    """Blocks of different forms, as attributes "0", "1", ...: an nnx.List would have numbers in its paths."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.depth = len(blocks)
        for i, block in enumerate(blocks):
            setattr(self, str(i), block)

    def __call__(
        self, x: Float[Array, "B T D"], c: Float[Array, "B D"], gate: Gate, *, remat: bool, see: bool
    ) -> tuple[Float[Array, "B T D"], States | None]:
        seen = []
        for i in range(self.depth):
            graphdef, layer = partition.split(getattr(self, str(i)))

            def body(x: Float[Array, "B T D"], layer: partition.Collections, graphdef: Any = graphdef) -> Any:
                x, states = partition.join(graphdef, layer)(x, c, gate)
                return x, states if see else None

            x, states = (jax.checkpoint(body) if remat else body)(x, layer)
            seen.append(states)
        return x, jax.tree.map(lambda *each: jnp.stack(each), *seen) if see else None

    def between(self, begin: int, end: int) -> Blocks:
        """The blocks ``begin`` to ``end`` - 1."""
        return Blocks([getattr(self, str(i)) for i in range(begin, end)])


class DiT(nnx.Module):
    """Predicts noise, velocity or v (and optionally a variance) from a noisy image, a time and a class.

    The class enters through the gate (which tailors are on) and, where the config has it, through an embedding.
    """

    def __init__(self, config: ModelConfig, *, init: Initializer) -> None:
        self.config = config
        area = config.patch * config.patch
        self.patch_embed = Dense(area * config.channels, config.width, init=init)
        self.time_embed = TimeEmbedding(config.width, config.time_frequencies, init=init)
        self.label_embed = (
            LabelEmbedding(config.num_classes, config.width, init=init) if config.label_embedding else None
        )
        if config.factor.ranks is None:
            self.blocks = stacks(lambda: Block(config, 0, init=init), config.stacks)
        else:
            self.blocks = Blocks([Block(config, i, init=init) for i in range(config.depth)])
        self.final = FinalLayer(config.width, area * config.out_channels, init=init)

    def __call__(
        self, images: Float[Array, "B H W C"], t: Float[Array, " B"], labels: Int[Array, " B"], gate: Gate,
        route: Route | None = None,
    ) -> Float[Array, "B H W out"]:  # fmt: skip
        """Evaluate the model.

        Args:
          images: noisy images.
          t: times as the diffusion process presents them to the model, 0..1000.
          labels: class labels; ``num_classes`` is the null class. Only the label embedding reads them.
          gate: which tailors are on.
          route: which tokens skip which blocks; in training alone.

        Returns:
          float32, with 2 C channels where the model predicts a variance.
        """
        return self._evaluate(images, t, labels, gate, see=False, route=route)[0]

    def seen(
        self, images: Float[Array, "B H W C"], t: Float[Array, " B"], labels: Int[Array, " B"], gate: Gate
    ) -> tuple[Float[Array, "B H W out"], States]:
        """As :meth:`__call__`, and the states [L, B, T, features] of every block: ``attention`` and ``mlp``, its tokens
        after these branches, of D features; ``adaln``, its modulation, as one token of 6 D features."""
        found, states = self._evaluate(images, t, labels, gate, see=True)
        assert states is not None
        return found, states

    def _evaluate(
        self, images: Float[Array, "B H W C"], t: Float[Array, " B"], labels: Int[Array, " B"], gate: Gate,
        *, see: bool, route: Route | None = None,
    ) -> tuple[Float[Array, "B H W out"], States | None]:  # fmt: skip
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        position = jnp.asarray(position_embedding(config.size // config.patch, config.width), dtype)
        x = self.patch_embed(patchify(images.astype(dtype), config.patch)) + position[None]
        c = self.time_embed(t, dtype)
        if self.label_embed is not None:
            c = c + self.label_embed(labels, dtype)
        if route is None:
            x, states = self._run_blocks(self.blocks, x, c, gate, see)
        else:
            x, states = self._along(route, x, c, gate), None
        return unpatchify(self.final(x, c), config.patch).astype(jnp.float32), states

    def _along(
        self, route: Route, x: Float[Array, "B T D"], c: Float[Array, "B D"], gate: Gate
    ) -> Float[Array, "B T D"]:
        """``x`` after all blocks, of which some see only the tokens that are kept."""

        def run(x: Float[Array, "B _ D"], begin: int, end: int) -> Float[Array, "B _ D"]:
            whole = self.blocks
            blocks = whole.between(begin, end) if isinstance(whole, Blocks) else between(whole, begin, end)
            return self._run_blocks(blocks, x, c, gate, False)[0]

        x = run(x, 0, route.first) if route.first else x
        x = route.leave(x, run(route.enter(x), route.first, route.last + 1))
        return run(x, route.last + 1, self.config.depth)

    def _run_blocks(
        self, blocks: nnx.Module, x: Float[Array, "B T D"], c: Float[Array, "B D"], gate: Gate, see: bool
    ) -> tuple[Float[Array, "B T D"], States | None]:
        config = self.config
        if isinstance(blocks, Blocks):
            graphdef, layers = partition.split(blocks)
            bank, gate = only_rows_in_use(layers["tailors"], gate)
            return partition.join(graphdef, {**layers, "tailors": bank})(x, c, gate, remat=config.remat, see=see)

        def call(block: Block, x: Float[Array, "B T D"], gate: Gate, each: None) -> Any:
            del each
            x, states = block(x, c, gate)
            return x, states if see else None

        return over_depth(blocks, x, gate, call, unroll=config.scan_unroll, remat=config.remat)
