"""A small, wide ResNet that tells digits apart, 8 x 8 in grey: one minute on one core of a laptop CPU.

python train.py --config configs/resnet_digits.py
"""

from kind_jax.classifying.config import AugmentConfig, ClassifyRun
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import ResNetConfig
from kind_jax.config.training import RuleConfig


def get_config() -> ClassifyRun:
    return ClassifyRun(
        model=ResNetConfig(size=8, channels=1, num_classes=10, stages=(1, 1, 1), width=2.0),
        data=DataConfig(source="digits", validation=0.2),
        holdout="validation",
        augment=AugmentConfig(crop=1),
        optimizer=OptimizerConfig(
            method="sgd",
            learning_rate=0.1,
            schedule="cosine",
            warmup=50,
            rules=(RuleConfig(path=r"params/.*/kernel", weight_decay=5e-4),),
        ),
        train=TrainConfig(steps=600, batch=64, ema=0.99, log_every=20, sample_every=200, checkpoint_every=200, keep=1),
    )
