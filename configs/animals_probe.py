"""A fresh head on EfficientNet-Lite0, frozen as ImageNet trained it, for ten animals: what its features are worth.

kind-jax convert --from efficientnet-lite0 --out lite0
python train.py --config configs/animals_probe.py --init lite0
"""

from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import EfficientNetConfig
from kind_jax.config.training import CollectionConfig


def get_config() -> ClassifyRun:
    return ClassifyRun(
        # Of 112 pixels, half of what the network was trained on, features take half the time of 160 and are nearly as
        # good (docs/classifiers.md). The moments of the images come with --init.
        model=EfficientNetConfig(size=28, channels=1, num_classes=10, resolution=112, colour=True),
        data=DataConfig(source="animals", flip=True, validation=0.1),
        holdout="validation",
        head="fresh",
        optimizer=OptimizerConfig(
            learning_rate=3e-3, schedule="cosine", warmup=20, params=CollectionConfig(freeze=True, thaw=("head",))
        ),
        train=TrainConfig(steps=300, batch=128, ema=0.98, log_every=20, sample_every=100, checkpoint_every=100, keep=1),
    )
