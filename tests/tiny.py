"""A run small enough for tests: real digits, a two-layer model, compiled in seconds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chaos.config import get_config
from kind_jax import model
from kind_jax.config import ModelConfig
from kind_jax.config import change as change

CONFIG = change(get_config(), train={"steps": 4, "batch": 8, "checkpoint_every": 0, "keep": 3})


TWELVE = change(CONFIG, train={"steps": 12, "checkpoint_every": 4})


def weights(config: ModelConfig, scale: float = 0.05, seed: int = 0) -> Any:
    """Initial weights plus noise: at its initialisation DiT's blocks do nothing and pass no gradient on."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda a: jnp.asarray(a + scale * rng.standard_normal(a.shape, np.float32)), model.init(config, seed)
    )
