"""One of two modules of the KIND model of digits, inside a meta model of two blocks.

kind-jax train --config digits --model.depth 2 --workdir runs/modules/meta
kind-jax modules runs/modules --config digits_module --module.meta runs/modules/meta
"""

from kind_jax.assembling.config import DiffusionModuleRun, ModuleConfig
from kind_jax.config import (
    DiffusionConfig,
    FactorConfig,
    ModelConfig,
    OptimizerConfig,
    SamplerConfig,
    TrainConfig,
)


def get_config() -> DiffusionModuleRun:
    return DiffusionModuleRun(
        model=ModelConfig(
            size=8,
            channels=1,
            patch=2,
            width=64,
            depth=4,
            heads=4,
            num_classes=10,
            label_embedding=False,
            learn_sigma=False,
            scan_unroll=0,
            factor=FactorConfig(learngenes=32, tailors=8),
        ),
        module=ModuleConfig(depths=(2, 2)),
        diffusion=DiffusionConfig(process="flow"),
        sampler=SamplerConfig(method="euler", steps=50),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup=100, clip=1.0),
        train=TrainConfig(
            steps=1500, batch=64, ema=0.999, log_every=50, checkpoint_every=500, keep=2, sample_every=500
        ),
    )
