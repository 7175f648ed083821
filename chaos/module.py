"""A module of a narrow vision transformer on real digits, which saves all the time."""

from kind_jax.assembling.config import ClassifierModuleRun, ModuleConfig
from kind_jax.classifying.config import AugmentConfig
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import ViTConfig


def get_config() -> ClassifierModuleRun:
    return ClassifierModuleRun(
        model=ViTConfig(size=8, channels=1, patch=4, width=16, depth=5, heads=2, drop_path=0.1),
        module=ModuleConfig(depths=(2, 1, 2)),
        data=DataConfig(source="digits", flip=True, validation=0.2),
        holdout="validation",
        augment=AugmentConfig(crop=1, mixup=0.2),
        smoothing=0.1,
        optimizer=OptimizerConfig(learning_rate=1e-3),
        train=TrainConfig(steps=1_000_000, batch=16, ema=0.9, log_every=1, checkpoint_every=3, keep=2, sample_every=9),
    )
