"""A run small enough for tests: real digits, a two-layer model, compiled in seconds."""

import dataclasses
from typing import Any

from kind_jax.config import (
    Config,
    DiffusionConfig,
    FactorConfig,
    ModelConfig,
    OptimizerConfig,
    SamplerConfig,
    TrainConfig,
)

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


def change(config: Any, **settings: Any) -> Any:
    """``config`` with fields replaced; a dict replaces fields of a nested config."""
    return dataclasses.replace(
        config, **{k: change(getattr(config, k), **v) if isinstance(v, dict) else v for k, v in settings.items()}
    )
