"""A run that starts in seconds and saves all the time: a two-layer KIND model on real digits."""

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
            size=8, channels=1, patch=4, width=16, depth=2, heads=2, num_classes=10, learn_sigma=False,
            factor=FactorConfig(projections=("qkv", "mlp_out"), learngenes=6, tailors=2),
        ),
        diffusion=DiffusionConfig(process="flow"),
        sampler=SamplerConfig(method="euler", steps=4),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        train=TrainConfig(steps=1_000_000, batch=16, log_every=1, checkpoint_every=3, keep=2, sample_every=0),
    )  # fmt: skip
