"""What a network that stays as it is makes of every image of a data set, computed once. N: images, D: features."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from kind_jax import partition
from kind_jax.classifying import network
from kind_jax.config.networks import Network
from kind_jax.data.sets import Dataset


def outputs(
    config: Network, weights: partition.Collections, dataset: Dataset, batch: int = 256
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N K"]]:
    """Features and logits of all images of a data set, in their order, in evaluation mode.

    A gated network is told the superclass of each image. Every host computes all of them for itself.

    Args:
      weights: as NumPy arrays, or on this host's devices.
      batch: images at a time; the last ones are filled up, so that nothing is compiled twice.
    """
    placed = jax.tree.map(jnp.asarray, weights)
    total = len(dataset.source)
    batch = min(batch, total)
    features, logits = [], []
    for start in range(0, total, batch):
        rows = np.minimum(np.arange(start, start + batch), total - 1)
        found = _outputs(config, placed, {k: v for k, v in dataset.source.gather(rows).items() if k != "bad"})
        kept = min(batch, total - start)
        features.append(np.asarray(found.features)[:kept])
        logits.append(np.asarray(found.logits)[:kept])
    return np.concatenate(features), np.concatenate(logits)


@functools.partial(jax.jit, static_argnums=0)
def _outputs(config: Network, weights: partition.Collections, batch: dict[str, Any]) -> network.Outputs:
    found = network.of_labels(config, weights, batch["image"], batch["label"])
    return found._replace(stats=None)
