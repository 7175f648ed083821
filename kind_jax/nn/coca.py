"""CoCa, the contrastive captioner (Yu et al. 2022): three towers, two poolers, two losses' worth of outputs.

Dimensions: B samples, H = W image side, C channels, P tokens of an image in the encoder, Q behind the pooler, T tokens
of a text (T1 with CLS), D width of the text towers, E features of an embedding, V vocabulary, L layers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from kind_jax import losses
from kind_jax.config.coca import CoCaConfig, TowerConfig
from kind_jax.nn.attention import Kept
from kind_jax.nn.embed import patchify
from kind_jax.nn.gate import learngenes_only
from kind_jax.nn.init import Initializer
from kind_jax.nn.layer import STDDEV, Layer, Pooler
from kind_jax.nn.linear import Dense, matmul
from kind_jax.nn.norm import LayerNorm
from kind_jax.nn.stack import over_depth, stack

TEMPERATURE = 0.07
SHARPEST = 100.0


class Image(NamedTuple):
    """What the encoder and the poolers make of images.

    Attributes:
      embedding: of unit length, float32.
      tokens: what captions see of them.
      states: the tokens behind each layer of the encoder.
    """

    embedding: Float[Array, "B E"]
    tokens: Float[Array, "B Q D"]
    states: Float[Array, "L B P M"]


class Text(NamedTuple):
    """What the unimodal decoder makes of texts.

    Attributes:
      embedding: of unit length, float32.
      words: behind the last layer, for the multimodal decoder.
      states: the tokens behind each layer, CLS as the last of them.
    """

    embedding: Float[Array, "B E"]
    words: Float[Array, "B T D"]
    states: Float[Array, "L B T1 D"]


class Writing(NamedTuple):
    """A caption that is being written: keys and values of the words so far, and of the image's tokens."""

    text: Kept
    multimodal: Kept
    image: Kept


class Tower(nnx.Module):
    """A stack of layers."""

    def __init__(self, config: CoCaConfig, tower: TowerConfig, *, init: Initializer, cross: Any = "none") -> None:
        self.unroll, self.remat = config.scan_unroll, config.remat
        self.blocks = stack(
            lambda: Layer(tower, init=init, activation=config.activation, eps=config.norm_eps, cross=cross),
            tower.depth,
        )

    def through(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "_ _ T"] | None, memory: Float[Array, "B S D"] | None = None
    ) -> tuple[Float[Array, "B T D"], Float[Array, "L B T D"]]:
        """``x`` after all layers, and after each."""

        def call(layer: Layer, x: Float[Array, "B T D"], *_: Any) -> Any:
            x = layer(x, mask, memory)
            return x, x

        return over_depth(self.blocks, x, learngenes_only(), call, unroll=self.unroll, remat=self.remat)

    def step(
        self, x: Float[Array, "B 1 D"], own: Kept, memory: Kept | None, position: Int[Array, ""]
    ) -> tuple[Float[Array, "B 1 D"], Kept]:
        """``x``, the token at one position, after all layers, and what they keep."""

        def call(layer: Layer, x: Float[Array, "B 1 D"], _: Any, each: Any) -> Any:
            own, memory = each
            return layer.step(x, own, memory, position)

        return over_depth(self.blocks, x, learngenes_only(), call, each=(own, memory), unroll=self.unroll, remat=False)

    def keep(self, memory: Float[Array, "B S D"]) -> Kept:
        """What each layer keeps of an image."""

        def call(layer: Layer, x: Float[Array, "B S D"], *_: Any) -> Any:
            return x, layer.keep(x)

        return over_depth(self.blocks, memory, learngenes_only(), call, unroll=self.unroll, remat=False)[1]


class Encoder(Tower):
    """The image encoder."""

    def __init__(self, config: CoCaConfig, *, init: Initializer) -> None:
        super().__init__(config, config.image, init=init)
        self.patch, width, eps = config.patch, config.image.width, config.norm_eps
        d_in = config.patch * config.patch * config.seen_channels
        self.patch_embed = Dense(d_in, width, init=init, stddev=STDDEV, bias=config.patch_bias)
        self.class_token = nnx.Param(init.normal(width, stddev=STDDEV)) if config.class_token else None
        self.position = nnx.Param(init.normal(config.patches + config.class_token, width, stddev=STDDEV))
        self.norm_input = LayerNorm(width, eps=eps, init=init) if config.norm_input else None
        self.norm = LayerNorm(width, eps=eps, init=init) if config.norm_image else None

    def __call__(self, images: Float[Array, "B H W C"]) -> tuple[Float[Array, "B P M"], Float[Array, "L B P M"]]:
        """The tokens of images, and their states behind each layer."""
        x = self.patch_embed(patchify(images, self.patch))
        if self.class_token is not None:
            token = jnp.broadcast_to(self.class_token[...].astype(x.dtype)[None, None, :], (len(x), 1, x.shape[-1]))
            x = jnp.concatenate([token, x], axis=1)
        x = x + self.position[...].astype(x.dtype)[None]
        x, states = self.through(x if self.norm_input is None else self.norm_input(x), None)
        return x if self.norm is None else self.norm(x), states


class Poolers(nnx.Module):
    """The captioning pooler, and the contrastive one on top of it or beside it."""

    def __init__(self, config: CoCaConfig, *, init: Initializer) -> None:
        width, memory, heads = config.text.width, config.image.width, config.pooler_heads
        self.kind = config.pooler
        self.caption = Pooler(config.queries, width, memory, heads, eps=config.norm_eps, init=init)
        below = width if config.pooler == "cascade" else memory
        alone = config.pooler == "first"
        self.contrastive = None if alone else Pooler(1, width, below, heads, eps=config.norm_eps, init=init)

    def __call__(self, x: Float[Array, "B P M"]) -> tuple[Float[Array, "B D"], Float[Array, "B Q D"]]:
        """What becomes the embedding, and what captions see."""
        tokens = self.caption(x)
        if self.contrastive is None:
            return tokens[:, 0], tokens[:, 1:]
        return self.contrastive(tokens if self.kind == "cascade" else x)[:, 0], tokens


class Words(Tower):
    """The unimodal decoder: it sees words alone."""

    def __init__(self, config: CoCaConfig, *, init: Initializer) -> None:
        super().__init__(config, config.text, init=init)
        self.shifted, width = config.cls_mask == "shifted", config.text.width
        self.table = nnx.Param(init.normal(config.vocabulary, width, stddev=STDDEV))
        self.position = nnx.Param(init.normal(config.context + 1, width, stddev=STDDEV / 2))
        self.cls_token = nnx.Param(init.normal(width, stddev=STDDEV / 2))
        self.norm = LayerNorm(width, eps=config.norm_eps, init=init)

    def __call__(
        self, tokens: Int[Array, "B T"], dtype: jnp.dtype
    ) -> tuple[Float[Array, "B D"], Float[Array, "B T D"], Float[Array, "L B T1 D"]]:
        """CLS behind the last layer and its norm, the words behind the last layer, and the states of all."""
        B, T = tokens.shape
        cls = jnp.broadcast_to(self.cls_token[...].astype(dtype)[None, None, :], (B, 1, self.table[...].shape[1]))
        x = jnp.concatenate([self.table[...].astype(dtype)[tokens], cls], axis=1)
        x, states = self.through(x + self.position[: T + 1].astype(dtype)[None], self.mask(tokens))
        return self.norm(x[:, -1]), x[:, :-1], states

    def mask(self, tokens: Int[Array, "B T"]) -> Bool[Array, "B T1 T1"]:
        """Earlier tokens that are no padding, and oneself among them; CLS, the last one, sees the whole text.

        The first token is seen even where it is padding: of an empty text, attention to nothing would be NaN.
        """
        real, always = tokens != 0, jnp.ones((len(tokens), 1), bool)
        valid = jnp.concatenate([always, real] if self.shifted else [always, real[:, 1:], always], axis=1)
        return jnp.tril(jnp.ones((valid.shape[1],) * 2, bool))[None] & valid[:, None, :]

    def one(self, token: Int[Array, " B"], position: Int[Array, ""], dtype: jnp.dtype) -> Float[Array, "B 1 D"]:
        """A token at one position, in front of the first layer."""
        return (self.table[...].astype(dtype)[token] + self.position[...].astype(dtype)[position][None])[:, None]


class Captions(Tower):
    """The multimodal decoder, and the logits of the next word."""

    def __init__(self, config: CoCaConfig, *, init: Initializer) -> None:
        super().__init__(config, config.multimodal, init=init, cross=config.cross)
        width = config.multimodal.width
        self.norm = LayerNorm(width, eps=config.norm_eps, init=init)
        self.logits = Dense(width, config.vocabulary, init=init, stddev=width**-0.5, bias=False)

    def __call__(
        self, words: Float[Array, "B T D"], image: Float[Array, "B Q D"]
    ) -> tuple[Float[Array, "B T V"], Float[Array, "L B T D"]]:
        mask = jnp.tril(jnp.ones((words.shape[1],) * 2, bool))[None]
        x, states = self.through(words, mask, image)
        return self.out(x), states

    def out(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """The logits, float32, of what the last layer gives."""
        return self.logits(self.norm(x)).astype(jnp.float32)


class Heads(nnx.Module):
    """The embeddings of images and texts, and the temperature at which they are compared."""

    def __init__(self, config: CoCaConfig, *, init: Initializer) -> None:
        width, stddev = config.text.width, config.text.width**-0.5
        self.image = nnx.Param(init.normal(width, config.embedding, stddev=stddev))
        self.text = nnx.Param(init.normal(width, config.embedding, stddev=stddev))
        self.log_temperature = nnx.Param(np.asarray(init.ones() * np.float32(math.log(TEMPERATURE))))


class CoCa(nnx.Module):
    """Embeddings of images and texts, and captions of images."""

    def __init__(self, config: CoCaConfig, *, init: Initializer) -> None:
        self.config = config
        self.image, self.poolers = Encoder(config, init=init), Poolers(config, init=init)
        self.text, self.multimodal = Words(config, init=init), Captions(config, init=init)
        self.heads = Heads(config, init=init)

    def encode_image(self, images: Float[Array, "B H W C"]) -> Image:
        """``images``: as the network sees them, see :func:`kind_jax.nn.inputs.seen`."""
        x, states = self.image(images.astype(self.config.dtype))
        pooled, tokens = self.poolers(x)
        return Image(losses.normalised(matmul(pooled, self.heads.image[...])), tokens, states)

    def encode_text(self, tokens: Int[Array, "B T"]) -> Text:
        """``tokens``: at most ``context`` of them, 0 behind the end of a text."""
        cls, words, states = self.text(tokens, jnp.dtype(self.config.dtype))
        return Text(losses.normalised(matmul(cls, self.heads.text[...])), words, states)

    def caption(
        self, words: Float[Array, "B T D"], image: Float[Array, "B Q D"]
    ) -> tuple[Float[Array, "B T V"], Float[Array, "L B T D"]]:
        """The logits of the word behind each of ``words``, float32, and the states behind each layer."""
        return self.multimodal(words, image)

    @property
    def temperature(self) -> Float[Array, ""]:
        """By which similarities are divided, 0.01 at least."""
        return jnp.maximum(jnp.exp(self.heads.log_temperature[...]), 1 / SHARPEST)

    def begin(self, image: Float[Array, "N Q D"], length: int, captions: int = 1) -> Writing:
        """Captions of at most ``length`` tokens that are about to be written, as many of each image: B in all.

        What is kept of an image is kept once, however many captions of it there are.
        """
        config, B = self.config, len(image) * captions

        def empty(tower: TowerConfig) -> Kept:
            shape = (tower.depth, B, length, tower.heads, tower.width // tower.heads)
            return Kept(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype))

        return Writing(empty(config.text), empty(config.multimodal), self.multimodal.keep(image))

    def step(
        self, token: Int[Array, " B"], position: Int[Array, ""], writing: Writing
    ) -> tuple[Float[Array, "B V"], Writing]:
        """The logits, float32, of what follows ``token``, which stands at ``position``."""
        x = self.text.one(token, position, jnp.dtype(self.config.dtype))
        x, text = self.text.step(x, writing.text, None, position)
        x, multimodal = self.multimodal.step(x, writing.multimodal, writing.image, position)
        return self.multimodal.out(x)[:, 0], writing._replace(text=text, multimodal=multimodal)
