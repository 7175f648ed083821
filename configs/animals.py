"""KIND draws ten animals, silhouettes of 28 x 28 in grey: ten minutes on a laptop CPU.

python train.py --config configs/animals.py
"""

from kind_jax.config import (
    Config,
    DataConfig,
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
            size=28,
            channels=1,
            patch=4,
            width=128,
            depth=6,
            heads=4,
            num_classes=10,
            label_embedding=False,
            learn_sigma=False,
            scan_unroll=0,
            factor=FactorConfig(learngenes=64, tailors=8),
        ),
        # Images lie in few of the dimensions that a patch of many pixels has, noise in all of them.
        diffusion=DiffusionConfig(process="flow", prediction="clean"),
        sampler=SamplerConfig(method="heun", steps=25, guidance=2.0),
        data=DataConfig(source="animals", flip=True),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup=100, b2=0.99, clip=1.0),
        train=TrainConfig(
            steps=2600,
            batch=32,
            ema=0.998,
            log_every=50,
            checkpoint_every=500,
            keep=2,
            sample_every=1300,
        ),
    )
