"""ViT-S/16 on ImageNet by DeiT's recipe: 300 epochs in batches of 1024.

kind-jax train --config deit_s16_imagenet --data.path TFDS

Random pieces are cut out of images that are scaled and cropped to 224 pixels already, not out of the whole ones.
"""

from kind_jax.classifying.config import AugmentConfig, ClassifyRun
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import vit
from kind_jax.config.training import RuleConfig

STEPS = 300 * 1_281_167 // 1024


def get_config() -> ClassifyRun:
    return ClassifyRun(
        model=vit("S/16", drop_path=0.1, dtype="bfloat16", scan_unroll=1),
        data=DataConfig(source="tfds", name="imagenet2012", size=224, flip=True, workers=16),
        augment=AugmentConfig(resized_crop=(0.08, 1.0), randaugment=(2, 9.0), mixup=0.8, cutmix=1.0, erase=0.25),
        smoothing=0.1,
        optimizer=OptimizerConfig(
            learning_rate=1e-3,  # DeiT's 5e-4 for every 512 images
            schedule="cosine",
            warmup=5 * 1_281_167 // 1024,
            warmup_start=1e-3,
            minimum=1e-2,
            rules=(RuleConfig(path=r"params/.*/kernel", weight_decay=0.05),),
        ),
        train=TrainConfig(steps=STEPS, batch=1024, ema=0.99996, checkpoint_every=5000, sample_every=12_500),
    )
