"""A ResNet-20 that tells ten animals apart, 28 x 28 in grey: four minutes on a laptop CPU.

python train.py --config configs/resnet_animals.py
"""

from kind_jax.classifying.config import AugmentConfig, ClassifyRun
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import ResNetConfig
from kind_jax.config.training import RuleConfig


def get_config() -> ClassifyRun:
    return ClassifyRun(
        model=ResNetConfig(size=28, channels=1, num_classes=10, depth=20),
        data=DataConfig(source="animals", flip=True, validation=0.1),
        holdout="validation",
        augment=AugmentConfig(crop=3),
        smoothing=0.1,
        optimizer=OptimizerConfig(
            method="sgd",
            learning_rate=0.2,
            schedule="cosine",
            warmup=50,
            rules=(RuleConfig(path=r"params/.*/kernel", weight_decay=5e-4),),
        ),
        train=TrainConfig(
            steps=1000, batch=128, ema=0.99, log_every=20, sample_every=200, checkpoint_every=200, keep=1
        ),
    )
