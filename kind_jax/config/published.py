"""KIND at the published sizes of DiT, trained as DiT is (Peebles & Xie 2023, section 4)."""

from __future__ import annotations

from typing import Any

from kind_jax.config.diffusion import DiffusionConfig, SamplerConfig
from kind_jax.config.model import FactorConfig, dit
from kind_jax.config.run import Config
from kind_jax.config.training import OptimizerConfig, TrainConfig


def published(name: str, **model: Any) -> Config:
    """The run of a size like ``XL/2``: 150 classes, bfloat16, and DiT's AdamW at a constant rate without decay.

    By default learngenes are half the width, and the tailors of a group 5/64 of it.
    """
    settings: dict[str, Any] = {
        "num_classes": 150,
        "dtype": "bfloat16",
        "factor": FactorConfig(projections=("qkv", "o", "mlp_in", "mlp_out")),
    }
    return Config(
        model=dit(name, **(settings | model)),
        diffusion=DiffusionConfig(process="gaussian"),
        sampler=SamplerConfig(method="ddpm", steps=250),
        optimizer=OptimizerConfig(learning_rate=1e-4, schedule="constant"),
        train=TrainConfig(steps=400_000, batch=256, ema=0.9999, null=0.1, log_every=100, checkpoint_every=10_000),
    )
