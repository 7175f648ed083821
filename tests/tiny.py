"""A run small enough for tests: real digits, a two-layer model, compiled in seconds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import model
from kind_jax.config import (
    Config,
    DiffusionConfig,
    FactorConfig,
    ModelConfig,
    OptimizerConfig,
    SamplerConfig,
    TrainConfig,
)
from kind_jax.config import change as change

CONFIG = Config(
    model=ModelConfig(
        size=8, channels=1, patch=4, width=16, depth=2, heads=2, num_classes=10, learn_sigma=False,
        factor=FactorConfig(projections=("qkv", "mlp_out"), learngenes=6, tailors=2),
    ),
    diffusion=DiffusionConfig(process="flow"),
    sampler=SamplerConfig(method="euler", steps=4),
    optimizer=OptimizerConfig(learning_rate=1e-3),
    train=TrainConfig(steps=4, batch=8, log_every=1, checkpoint_every=0, sample_every=0),
)  # fmt: skip


def weights(config: ModelConfig, scale: float = 0.05, seed: int = 0) -> Any:
    """Initial weights plus noise: at its initialisation DiT's blocks do nothing and pass no gradient on."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda a: jnp.asarray(a + scale * rng.standard_normal(a.shape, np.float32)), model.init(config, seed)
    )
