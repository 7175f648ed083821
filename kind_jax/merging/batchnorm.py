"""BatchNorm's statistics of a merged network, found anew: means and variances of merged features are not merged ones.

As in the published code: each batch goes through the network as in training, so that every layer sees what layers
before it make when they normalise by that batch; running statistics become the plain mean over batches of their means
and unbiased variances.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from kind_jax.classifying import network
from kind_jax.config.networks import Network, ZippedConfig
from kind_jax.errors import UserError
from kind_jax.partition import STATS, Collections


def reset(config: Network, collections: Collections, batches: Iterable[Float[np.ndarray, "_ H W C"]]) -> Collections:
    """The collections with statistics of these images, in [-1, 1]; of a network without BatchNorm, as they are.

    Raises:
      UserError: no images, or a batch of one, which has no variance.
    """
    if not collections.get(STATS):
        return collections
    # With a momentum of 1 the running moments become those of the batch.
    whole = _with_momentum(config, 1.0)
    placed = jax.tree.map(jnp.asarray, collections)
    total, count = None, 0
    for images in batches:
        if len(images) < 2:
            raise UserError("a batch for BatchNorm's statistics has 1 image, but it must have 2 or more.")
        found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), _of_batch(whole, placed, jnp.asarray(images)))
        total = found if total is None else jax.tree.map(np.add, total, found)
        count += 1
    if total is None:
        raise UserError("there are no images for BatchNorm's statistics, but there must be some.")
    return {**collections, STATS: jax.tree.map(lambda leaf: (leaf / count).astype(np.float32), total)}


@functools.partial(jax.jit, static_argnums=0)
def _of_batch(config: Network, weights: Collections, images: Any) -> Any:
    gate = network.gate_of(config, jnp.zeros(len(images), jnp.int32))
    return network.outputs(config, weights, images, gate, train=True).stats


def _with_momentum(config: Any, momentum: float) -> Any:
    if isinstance(config, ZippedConfig):
        return dataclasses.replace(config, of=_with_momentum(config.of, momentum))
    return dataclasses.replace(config, momentum=momentum)
