"""A deep vision transformer that reads handwritten digits: two minutes on a laptop CPU.

kind-jax train --config vit_digits
"""

from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import ViTConfig
from kind_jax.config.training import RuleConfig


def get_config() -> ClassifyRun:
    return ClassifyRun(
        model=ViTConfig(size=8, channels=1, num_classes=10, patch=2, width=64, depth=12, heads=4),
        data=DataConfig(source="digits", validation=0.2),
        holdout="validation",
        smoothing=0.1,
        optimizer=OptimizerConfig(
            learning_rate=3e-3,
            schedule="cosine",
            warmup=50,
            clip=1.0,
            rules=(RuleConfig(path=r"params/.*/kernel", weight_decay=0.05),),
        ),
        train=TrainConfig(steps=500, batch=64, ema=0.98, log_every=20, sample_every=100, checkpoint_every=250, keep=1),
    )
