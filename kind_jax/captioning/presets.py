"""Settings of CoCa: on emoji, and as published."""

from __future__ import annotations

from kind_jax.captioning.config import CaptionRun, TextConfig
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.coca import CoCaConfig, TowerConfig, coca
from kind_jax.config.training import RuleConfig

KERNELS = r"params/.*(kernel|table|heads/image|heads/text)"


def emoji(depth: int = 4, steps: int = 3000) -> CaptionRun:
    """Emoji of 32 pixels: what a laptop trains in a quarter of an hour.

    Args:
      depth: layers of each tower.
    """
    tower = TowerConfig(width=96, depth=depth, heads=4)
    return CaptionRun(
        model=CoCaConfig(
            size=32, channels=3, patch=8, image=tower, text=tower, multimodal=tower, vocabulary=259, context=64,
            embedding=96, queries=16, pooler_heads=4,
        ),
        text=TextConfig(truncate=True),
        data=DataConfig(source="emoji", size=32, validation=0.1),
        holdout="validation",
        optimizer=OptimizerConfig(
            learning_rate=2e-3, schedule="cosine", warmup=100, clip=1.0,
            rules=(RuleConfig(path=KERNELS, weight_decay=0.05),),
        ),
        train=TrainConfig(steps=steps, batch=64, ema=0.99, log_every=50, sample_every=500, checkpoint_every=500),
    )  # fmt: skip


def published(name: str) -> CaptionRun:
    """CoCa ``base``, ``large`` or ``2b`` on captions of COCO, as it was fine-tuned for them (its tables 1 and 10).

    The tokenizer of 64,000 pieces was not released: training needs another, and ``model.vocabulary`` with it. Adafactor
    is replaced by AdamW.
    """
    return CaptionRun(
        model=coca(name, dtype="bfloat16"),
        data=DataConfig(source="tfds", name="coco_captions", size=288),
        contrastive=0.0,
        optimizer=OptimizerConfig(
            learning_rate=1e-5, schedule="cosine", warmup=1000, clip=1.0,
            rules=(RuleConfig(path=KERNELS, weight_decay=0.1),),
        ),
        train=TrainConfig(steps=50_000, batch=128, ema=None, log_every=100, sample_every=5000, checkpoint_every=5000),
    )  # fmt: skip
