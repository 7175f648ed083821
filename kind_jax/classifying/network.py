"""A classifier as pure functions of its settings and collections. B: samples, K: classes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kind_jax import model, partition
from kind_jax.config.networks import Network
from kind_jax.nn.gate import Gate, learngenes_only, one_group
from kind_jax.partition import STATS


def gate_of(config: Network, superclass: Int[Array, " B"]) -> Gate:
    """The gate of each sample over the whole bank; of a model without tailors, one that says nothing."""
    return one_group(superclass) if config.gated else learngenes_only()


def superclass_of(config: Network, labels: Int[Array, " B"]) -> Int[Array, " B"]:
    """The group of each label."""
    return jnp.asarray(np.asarray(config.group_of_class, np.int32))[labels]


def logits(
    config: Network,
    collections: partition.Collections,
    images: Float[Array, "B H W C"],
    gate: Gate,
    *,
    superclass: Int[Array, " B"] | None = None,
    train: bool = False,
    paths: Float[Array, "L B 2"] | None = None,
) -> tuple[Float[Array, "B K"], Any]:
    """Logits, and the collection ``stats`` afterwards (None for a network without).

    Args:
      images: in [-1, 1].
      superclass: given, classes of other groups have the logit -inf: a gated classifier chooses within a superclass.
      train, paths: see the networks.
    """
    net = partition.join(model.definition(config)[0], collections)
    found = net(seen(config, images), gate, train=train, paths=paths)
    if superclass is not None:
        inside = jnp.asarray(np.asarray(config.group_of_class, np.int32))[None, :] == superclass[:, None]
        found = jnp.where(inside, found, -jnp.inf)
    return found, partition.split(net)[1].get(STATS)


def seen(config: Network, images: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
    """Images in [-1, 1] as the network sees them: in its resolution, its channels, and normalised as it is used to."""
    if config.resolution is not None and images.shape[1:3] != (config.resolution,) * 2:
        shape = (config.resolution, config.resolution, images.shape[-1])
        images = jax.vmap(lambda image: jax.image.resize(image, shape, "linear", antialias=True))(images)
    if config.colour:
        images = jnp.broadcast_to(images, (*images.shape[:3], config.seen_channels))
    return normalised(config, images)


def normalised(config: Network, images: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Images in [-1, 1] as the network is used to have them normalised."""
    if config.mean is None or config.std is None:
        return images
    mean, std = (jnp.asarray(values, jnp.float32)[None, None, None, :] for values in (config.mean, config.std))
    return ((images + 1) / 2 - mean) / std
