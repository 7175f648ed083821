"""A vision transformer of half its teacher's depth, distilled module by module: a minute on a laptop CPU.

kind-jax train --config vit_digits --workdir runs/teacher
kind-jax train --config digits_modules --optima.teacher runs/teacher
"""

from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import ViTConfig
from kind_jax.config.training import RuleConfig
from kind_jax.distillation.optima_config import ClassifierOptimaRun, OptimaConfig, optima_run


def get_config() -> ClassifierOptimaRun:
    student = ClassifyRun(
        model=ViTConfig(size=8, channels=1, num_classes=10, patch=2, width=64, depth=6, heads=4),
        data=DataConfig(source="digits", validation=0.2),
        holdout="validation",
        optimizer=OptimizerConfig(
            learning_rate=3e-3,
            schedule="cosine",
            warmup=50,
            clip=1.0,
            rules=(RuleConfig(path=r"params/.*/kernel", weight_decay=0.05),),
        ),
        train=TrainConfig(steps=500, batch=64, ema=0.98, log_every=20, sample_every=100, checkpoint_every=250, keep=1),
    )
    return optima_run(student, OptimaConfig())
