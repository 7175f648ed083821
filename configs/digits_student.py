"""A small ResNet that reads handwritten digits and learns from a larger network: half a minute on a laptop CPU.

kind-jax train --config vit_digits --workdir runs/teacher
kind-jax train --config digits_student --distil.teacher runs/teacher
"""

from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import ResNetConfig
from kind_jax.config.training import RuleConfig
from kind_jax.distillation.config import DistilConfig, DistilRun


def get_config() -> DistilRun:
    return DistilRun(
        model=ResNetConfig(size=8, channels=1, num_classes=10, stages=(1, 1, 1), width=0.5),
        distil=DistilConfig(),
        data=DataConfig(source="digits", validation=0.2),
        holdout="validation",
        optimizer=OptimizerConfig(
            learning_rate=3e-3,
            schedule="cosine",
            warmup=20,
            clip=1.0,
            rules=(RuleConfig(path=r"params/.*/kernel", weight_decay=0.01),),
        ),
        train=TrainConfig(steps=500, batch=64, ema=0.98, log_every=20, sample_every=100, checkpoint_every=250, keep=1),
    )
