"""CoCa as pure functions of its settings and collections.

Dimensions: B pairs, T tokens of a text, E features of an embedding, Q tokens of an image, V vocabulary.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kind_jax import flops, model, partition
from kind_jax.config.coca import CoCaConfig
from kind_jax.nn import coca
from kind_jax.nn.inputs import seen

States = dict[str, Float[Array, "..."]]


class Outputs(NamedTuple):
    """What a model makes of images and their captions.

    Attributes:
      image, text: embeddings of unit length, float32.
      logits: of the words behind each but the last, float32.
      temperature: by which similarities are divided.
      states: tokens behind each layer of ``image``, ``text`` (CLS as the last of them) and ``multimodal``.
    """

    image: Float[Array, "B E"]
    text: Float[Array, "B E"]
    logits: Float[Array, "B T1 V"]
    temperature: Float[Array, ""]
    states: States


def opened(config: CoCaConfig, collections: partition.Collections) -> coca.CoCa:
    """The network with these weights; call it inside the traced function that uses it."""
    return partition.join(model.definition(config)[0], collections)


def outputs(
    config: CoCaConfig,
    collections: partition.Collections,
    images: Float[Array, "B H W C"],
    tokens: Int[Array, "B T"],
) -> Outputs:
    """Embeddings, and the logits of each caption's words.

    Args:
      images: in [-1, 1].
      tokens: captions, each from the token that begins it to the one that ends it, then padding.
    """
    net = opened(config, collections)
    image, text = net.encode_image(seen(config, images)), net.encode_text(tokens)
    logits, states = net.caption(text.words[:, :-1], image.tokens)
    found = {"image": image.states, "text": text.states, "multimodal": states}
    return Outputs(image.embedding, text.embedding, logits, net.temperature, found)


def encode_image(
    config: CoCaConfig, collections: partition.Collections, images: Float[Array, "B H W C"]
) -> tuple[Float[Array, "B E"], Float[Array, "B Q D"]]:
    """The embedding of images in [-1, 1], and the tokens that captions see."""
    found = opened(config, collections).encode_image(seen(config, images))
    return found.embedding, found.tokens


def encode_text(
    config: CoCaConfig, collections: partition.Collections, tokens: Int[Array, "B T"]
) -> Float[Array, "B E"]:
    """The embedding of texts."""
    return opened(config, collections).encode_text(tokens).embedding


@functools.lru_cache(maxsize=32)
def forward(config: CoCaConfig) -> float:
    """FLOPs of the matrix products for one image and a caption that fills the context."""

    def f(collections: partition.Collections) -> Any:
        images = jnp.zeros((1, config.size, config.size, config.channels))
        return outputs(config, collections, images, jnp.zeros((1, config.context), jnp.int32))[:3]

    return flops.count(jax.make_jaxpr(f)(model.definition(config)[1]))
