"""A CoCa that is small enough for tests, of weights so large that whatever it sees changes what it says."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import model, partition
from kind_jax.config.coca import CoCaConfig, TowerConfig

BOS, EOS = 1, 2


def config(**settings: Any) -> CoCaConfig:
    """Three layers in all; images of 8 pixels in four patches, and texts of up to ten tokens."""
    tower = TowerConfig(width=16, depth=1, heads=2)
    small = {
        "size": 8, "patch": 4, "image": TowerConfig(width=24, depth=1, heads=2), "text": tower, "multimodal": tower,
        "vocabulary": 11, "context": 10, "embedding": 8, "queries": 3, "pooler_heads": 2,
    }  # fmt: skip
    return CoCaConfig(**(small | settings))


def weights(config: CoCaConfig, seed: int = 0, scale: float = 0.5) -> Any:
    """Initial weights plus noise of this standard deviation."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda a: jnp.asarray(a + scale * rng.standard_normal(a.shape, np.float32)), model.init(config, seed)
    )


def images(config: CoCaConfig, count: int, seed: int = 0) -> Any:
    shape = (count, config.size, config.size, config.channels)
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32))


def network(config: CoCaConfig, collections: Any) -> Any:
    """The module; call it inside of a traced function."""
    return partition.join(model.definition(config)[0], collections)
