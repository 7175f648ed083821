"""KIND on scikit-learn's handwritten digits: minutes on a laptop CPU.

kind-jax train --config digits
"""

from kind_jax.config import (
    Config,
    DiffusionConfig,
    FactorConfig,
    ModelConfig,
    OptimizerConfig,
    SamplerConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
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
        diffusion=DiffusionConfig(process="flow"),
        sampler=SamplerConfig(method="euler", steps=50),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup=100, clip=1.0),
        train=TrainConfig(
            steps=3500, batch=64, ema=0.999, log_every=50, checkpoint_every=1000, keep=2, sample_every=1000
        ),
    )
