"""A vision transformer that tells ten animals apart, 28 x 28 in grey: six minutes on a laptop CPU.

python train.py --config configs/vit_animals.py
"""

from kind_jax.classifying.config import AugmentConfig, ClassifyRun
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import ViTConfig
from kind_jax.config.training import RuleConfig


def get_config() -> ClassifyRun:
    return ClassifyRun(
        model=ViTConfig(size=28, channels=1, num_classes=10, patch=4, width=128, depth=6, heads=4),
        data=DataConfig(source="animals", flip=True, validation=0.1),
        holdout="validation",
        augment=AugmentConfig(crop=3),
        smoothing=0.1,
        optimizer=OptimizerConfig(
            method="muon",
            learning_rate=2e-3,
            schedule="cosine",
            warmup=100,
            b2=0.99,
            clip=1.0,
            rules=(RuleConfig(path=r"params/.*/kernel", weight_decay=0.05),),
        ),
        train=TrainConfig(
            steps=1300, batch=128, ema=0.99, log_every=20, sample_every=130, checkpoint_every=260, keep=1
        ),
    )
