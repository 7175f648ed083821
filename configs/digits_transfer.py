"""Fresh tailors for the digits 7, 8 and 9 on the frozen learngenes of a model that knows the digits 0 to 6.

kind-jax train --config digits --data.classes 0 1 2 3 4 5 6 --model.num-classes 7 --train.steps 1000 \
    --workdir runs/base
kind-jax transfer runs/base --config digits_transfer --workdir runs/novel
"""

import dataclasses

from kind_jax.config import Config, DataConfig, OptimizerConfig, TrainConfig, TransferConfig
from kind_jax.config.presets import preset


def get_config() -> Config:
    base = preset("digits")
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, num_classes=3),
        data=DataConfig(classes=(7, 8, 9)),
        # A few steps at a high rate: little moves, and nothing that was learned can be damaged.
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup=5, clip=1.0),
        train=TrainConfig(steps=200, batch=64, ema=0.99, log_every=20, checkpoint_every=0, sample_every=0),
        transfer=TransferConfig(method="kind"),
    )
