"""Heads for understanding tasks on CoCa (Yu et al. 2022, section 4.2): questions about an image, or about a pair.

One more pooler with a single query sees what the multimodal decoder makes of a text beside an image, and a linear layer
classifies what it gives. Where a text is about two images (NLVR2), it is read beside each, and both results are put
side by side.

Dimensions: B texts, P images of a text, T tokens, D width of the text towers, K classes.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from kind_jax import partition
from kind_jax.captioning.losses import words
from kind_jax.captioning.network import opened
from kind_jax.config.check import check_seed, is_whole, require
from kind_jax.config.coca import CoCaConfig
from kind_jax.errors import UserError
from kind_jax.nn.init import Initializer, ShapesOnly
from kind_jax.nn.inputs import seen
from kind_jax.nn.layer import STDDEV, Pooler
from kind_jax.nn.linear import Dense


class Head(nnx.Module):
    """A pooler with one query, and a linear classifier."""

    def __init__(self, config: CoCaConfig, classes: int, images: int, *, init: Initializer) -> None:
        width = config.multimodal.width
        self.pooler = Pooler(1, width, width, config.pooler_heads, eps=config.norm_eps, init=init)
        self.classifier = Dense(images * width, classes, init=init, stddev=STDDEV)


def init(config: CoCaConfig, classes: Any, seed: Any = 0, images: Any = 1) -> partition.Collections:
    """Fresh weights of a head as NumPy arrays; its collections are those of any model.

    Args:
      classes: K.
      images: P, of each text; 2 for pairs.

    Raises:
      UserError: there are no classes or no images, or the seed is none.
    """
    for name, value in (("classes", classes), ("images", images)):
        require(is_whole(value) and value >= 1, name, value, "a whole number, 1 or more")
    return partition.split(Head(config, classes, images, init=Initializer(check_seed(seed))))[1]


def features(
    config: CoCaConfig,
    weights: partition.Collections,
    head: partition.Collections,
    images: Any,
    tokens: Any,
) -> Float[Array, "B F"]:
    """What the classifier of a head sees, F = P D features, float32.

    Args:
      weights: of CoCa.
      head: as :func:`init` gives them.
      images: in [-1, 1], [B, H, W, C], or [B, P, H, W, C] for a head of P images.
      tokens: whole numbers [B, T], texts with padding behind them, of at most ``context`` tokens.

    Raises:
      UserError: images or tokens have another shape, or the head is for another number of images.
    """
    shape, found = (config.size, config.size, config.channels), jnp.shape(images)
    possible = len(found) in (4, 5) and found[-3:] == shape and found[0] > 0
    require(possible, "images", found, f"an array of images {shape}, one for each text or several")
    count = found[1] if len(found) == 5 else 1
    wanted = head[partition.PARAMS]["classifier"]["kernel"].shape[0] // config.multimodal.width
    if count != wanted:
        raise UserError(f"the images are {count} for each text, but the head must have {wanted}.")
    texts = jnp.shape(tokens)
    possible = len(texts) == 2 and texts[0] == found[0] and 1 <= texts[1] <= config.context
    require(possible, "tokens", texts, f"{found[0]} texts of 1 to {config.context} tokens, one for each image or group")
    images, tokens = jnp.asarray(images), jnp.asarray(tokens)
    require(jnp.issubdtype(tokens.dtype, jnp.integer), "tokens", str(tokens.dtype), "whole numbers")
    net, of = opened(config, weights), partition.join(_definition(config), head)
    flat = images.reshape(len(images) * count, *images.shape[-3:])
    read = net.encode_text(tokens).words
    read = jnp.repeat(read, count, axis=0)  # the text does not depend on the image until it meets it
    _, states = net.caption(read, net.encode_image(seen(config, flat)).tokens)
    # The first token is seen even where it is padding: of an empty text, attention to nothing would be NaN.
    valid = jnp.repeat(words(tokens).at[:, 0].set(True), count, axis=0)
    pooled = of.pooler(net.multimodal.norm(states[-1]), valid)[:, 0].astype(jnp.float32)
    return pooled.reshape(len(images), count * pooled.shape[-1])


def logits(
    config: CoCaConfig,
    weights: partition.Collections,
    head: partition.Collections,
    images: Any,
    tokens: Any,
) -> Float[Array, "B K"]:
    """Of the classes of a head, float32; see :func:`features`."""
    found = features(config, weights, head, images, tokens)
    return partition.join(_definition(config), head).classifier(found)


@functools.lru_cache(maxsize=8)
def _definition(config: CoCaConfig) -> nnx.GraphDef:
    """Of a head; what it holds says how many classes and images it is for."""
    return partition.split(Head(config, 1, 1, init=ShapesOnly()))[0]
