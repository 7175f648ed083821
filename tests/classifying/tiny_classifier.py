"""Classifiers small enough for tests: real digits, networks that compile in seconds."""

from kind_jax.classifying.config import AugmentConfig, ClassifyRun
from kind_jax.config import DataConfig, FactorConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import CNNConfig, ResNetConfig, ViTConfig
from kind_jax.config.training import RuleConfig

VIT = ViTConfig(size=8, channels=1, patch=4, width=16, depth=2, heads=2)
KIND = ViTConfig(
    size=8, channels=1, patch=4, width=16, depth=2, heads=2, groups=(0, 1) * 5, gate="superclass",
    factor=FactorConfig(learngenes=8, tailors=2),
)  # fmt: skip
RESNET = ResNetConfig(size=8, channels=1, width=0.25, stages=(1, 2, 1))
CNN = CNNConfig(size=8, channels=1)


def run(model=VIT, **train):
    """Every augmentation that keeps images as they are sized, SGD with a rule, a validation split."""
    return ClassifyRun(
        model=model,
        data=DataConfig(source="digits", flip=True, validation=0.2),
        holdout="validation",
        augment=AugmentConfig(crop=1, mixup=0.2, cutmix=0.5, erase=0.2),
        smoothing=0.1,
        optimizer=OptimizerConfig(
            method="sgd", learning_rate=0.1, schedule="cosine", warmup=2, warmup_start=0.1, minimum=0.01,
            lazy_tailors=False, rules=(RuleConfig(path="params/.*/kernel", weight_decay=1e-3),),
        ),
        train=TrainConfig(
            **{
                "steps": 8, "batch": 16, "ema": 0.9, "log_every": 1, "checkpoint_every": 4, "sample_every": 4,
                **train,
            }
        ),
    )  # fmt: skip
