"""A run of another kind that starts in seconds and saves all the time: a narrow ResNet-20 on real digits.

Its statistics move without gradients, and it keeps its best weights.
"""

from kind_jax.classifying.config import AugmentConfig, ClassifyRun
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import ResNetConfig
from kind_jax.config.training import RuleConfig


def get_config() -> ClassifyRun:
    return ClassifyRun(
        model=ResNetConfig(size=8, channels=1, width=0.25),
        data=DataConfig(source="digits", flip=True, validation=0.2),
        holdout="validation",
        augment=AugmentConfig(crop=1, mixup=0.2),
        smoothing=0.1,
        optimizer=OptimizerConfig(
            method="sgd", learning_rate=0.02, rules=(RuleConfig(path="params/.*/kernel", weight_decay=1e-4),)
        ),
        train=TrainConfig(
            steps=1_000_000, batch=16, ema=0.9, log_every=1, checkpoint_every=3, keep=2, sample_every=9
        ),
    )  # fmt: skip
