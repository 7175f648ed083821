"""A classifier as pure functions of its settings and collections. B: samples, K: classes."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kind_jax import model, partition
from kind_jax.config.networks import Network
from kind_jax.nn.gate import Gate, learngenes_only, one_group
from kind_jax.nn.inputs import seen
from kind_jax.partition import STATS


def gate_of(config: Network, superclass: Int[Array, " B"]) -> Gate:
    """The gate of each sample over the whole bank; of a model without tailors, one that says nothing."""
    return one_group(superclass) if config.gated else learngenes_only()


def superclass_of(config: Network, labels: Int[Array, " B"]) -> Int[Array, " B"]:
    """The group of each label."""
    return jnp.asarray(np.asarray(config.group_of_class, np.int32))[labels]


class Outputs(NamedTuple):
    """What a network makes of images.

    Attributes:
      features: what its head sees, float32.
      logits: float32.
      stats: the collection ``stats`` afterwards; None for a network without.
      states: what its blocks let be seen, where that was asked for, see :meth:`kind_jax.nn.vit.ViT.seen`.
    """

    features: Float[Array, "B D"]
    logits: Float[Array, "B K"]
    stats: Any = None
    states: Any = None


def outputs(
    config: Network,
    collections: partition.Collections,
    images: Float[Array, "B H W C"],
    gate: Gate,
    *,
    superclass: Int[Array, " B"] | None = None,
    train: bool = False,
    paths: Float[Array, "L B 2"] | None = None,
    see: bool = False,
) -> Outputs:
    """Features and logits of images, and the statistics that they leave.

    Args:
      images: in [-1, 1].
      superclass: given, classes of other groups have the logit -inf: a gated classifier chooses within a superclass.
      train, paths: see the networks.
      see: whether to give the states of a vision transformer's blocks, too.
    """
    net = partition.join(model.definition(config)[0], collections)
    states = None
    if see:
        features, states = net.seen(seen(config, images), gate, paths=paths)
    else:
        features = net.features(seen(config, images), gate, train=train, paths=paths)
    found = _inside(config, net.logits(features), superclass)
    return Outputs(features.astype(jnp.float32), found, partition.split(net)[1].get(STATS), states)


def of_features(
    config: Network,
    collections: partition.Collections,
    features: Float[Array, "B D"],
    superclass: Int[Array, " B"] | None = None,
) -> Outputs:
    """:func:`outputs` of images whose features are known: what is left to the head."""
    return Outputs(features, _inside(config, head(config, collections, features), superclass))


def of_labels(
    config: Network, collections: partition.Collections, images: Float[Array, "B H W C"], labels: Int[Array, " B"]
) -> Outputs:
    """:func:`outputs` in evaluation mode, where a gated network is told the superclass of each label."""
    superclass = superclass_of(config, labels)
    told = superclass if config.gated else None
    return outputs(config, collections, images, gate_of(config, superclass), superclass=told)


def logits(
    config: Network, collections: partition.Collections, images: Float[Array, "B H W C"], gate: Gate, **how: Any
) -> tuple[Float[Array, "B K"], Any]:
    """The logits and statistics of :func:`outputs`, whose arguments it takes."""
    found = outputs(config, collections, images, gate, **how)
    return found.logits, found.stats


def head(config: Network, collections: partition.Collections, features: Float[Array, "B D"]) -> Float[Array, "B K"]:
    """The logits that the head gives to features; the rest of the collections is not used."""
    return partition.join(model.definition(config)[0], collections).logits(features)


def _inside(config: Network, logits: Float[Array, "B K"], superclass: Int[Array, " B"] | None) -> Float[Array, "B K"]:
    if superclass is None:
        return logits
    inside = jnp.asarray(np.asarray(config.group_of_class, np.int32))[None, :] == superclass[:, None]
    return jnp.where(inside, logits, -jnp.inf)


@functools.lru_cache(maxsize=32)
def feature_width(config: Network) -> int:
    """How many features the head sees; takes no memory."""
    images = jax.ShapeDtypeStruct((1, config.size, config.size, config.channels), jnp.float32)

    def f(collections: partition.Collections, images: Float[Array, "B H W C"]) -> Float[Array, "B D"]:
        return outputs(config, collections, images, gate_of(config, jnp.zeros(1, jnp.int32))).features

    return jax.eval_shape(f, model.definition(config)[1], images).shape[1]
