"""The published recipe for ImageNet-1K (Ni et al. 2022, arXiv 2212.04129, and its code): three phases of three sizes.

What differs here, and why: the rate changes every step and not once an epoch, one epoch late; frozen modules drop no
branches; class token and positions never decay; gradients are clipped where fine-tuning begins at the full rate. The
published code's own ways are ``--optimizer.schedule deit --optimizer.epoch 625``, ``--module.frozen-paths``,
``--module.decay-tokens`` and ``--optimizer.clip None`` (it clips in mixed precision alone). Not there: repeated
augmentation, and RandAugment's noise on its strength.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from kind_jax.assembling.config import ClassifierModuleRun, ModuleConfig, module_run
from kind_jax.classifying.config import AugmentConfig, ClassifyRun
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.check import check_choice
from kind_jax.config.networks import vit
from kind_jax.config.training import RuleConfig

Size = Literal["B/16", "L/16", "H/14"]

MODULES = 4
BATCH = 2048
EPOCH = 1_281_167 // BATCH  # steps
PEAK = 2e-3  # 5e-4 for every 512 images

_DEPTHS = {"B/16": (3,) * MODULES, "L/16": (6,) * MODULES, "H/14": (8,) * MODULES}
_DROP_PATH = {"B/16": 0.1, "L/16": 0.5, "H/14": 0.6}  # of fine-tuning


def meta(size: Size) -> ClassifyRun:
    """The meta model: one block in place of each module, 300 epochs."""
    config = _run(size, epochs=300, warmup=20, drop_path=0.0)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, depth=MODULES))


def module(size: Size) -> ClassifierModuleRun:
    """One of four modules inside the meta model, 100 epochs; ``module.index`` and ``module.meta`` are to be given."""
    return module_run(
        _run(size, epochs=100, warmup=20, drop_path=0.1),
        ModuleConfig(depths=_DEPTHS[size], frozen="replicated"),
    )


def assembled(size: Size) -> ClassifyRun:
    """Fine-tuning of the assembled network, 100 epochs, from the full rate."""
    config = _run(size, epochs=100, warmup=0, drop_path=_DROP_PATH[size])
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, clip=1.0))


def _run(size: Size, *, epochs: int, warmup: int, drop_path: float) -> ClassifyRun:
    check_choice(size, Size, "size")
    return ClassifyRun(
        model=vit(
            size, drop_path=drop_path, dtype="bfloat16", scan_unroll=1, mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        data=DataConfig(source="tfds", name="imagenet2012", size=224, flip=True, workers=16),
        augment=AugmentConfig(resized_crop=(0.08, 1.0), randaugment=(2, 9.0), mixup=0.8, cutmix=1.0, erase=0.25),
        smoothing=0.1,
        optimizer=OptimizerConfig(
            learning_rate=PEAK, schedule="cosine", warmup=warmup * EPOCH, warmup_start=1e-6 / PEAK if warmup else 0.0,
            minimum=1e-5 / PEAK, rules=(RuleConfig(path=r"params/.*/kernel", weight_decay=0.05),),
        ),
        train=TrainConfig(
            steps=epochs * EPOCH, batch=BATCH, ema=None, checkpoint_every=2 * EPOCH, sample_every=5 * EPOCH
        ),
    )  # fmt: skip
