"""KIND as a DiT-XL/2: the published size on latents of 32 x 32 x 4, tailors for each of 150 classes.

kind-jax plan --config configs/dit_xl2.py --mesh 16x16

It can be planned and benchmarked today. Training needs a data source of latents; until there is one, kind-jax train
refuses it with the shapes that do not match.
"""

from kind_jax.config import (
    Config,
    DiffusionConfig,
    FactorConfig,
    OptimizerConfig,
    SamplerConfig,
    TrainConfig,
    dit,
)


def get_config() -> Config:
    return Config(
        # By default learngenes are half the width, and the tailors of a group 5/64 of it.
        model=dit(
            "XL/2",
            num_classes=150,
            dtype="bfloat16",
            scan_unroll=1,
            remat=True,
            factor=FactorConfig(projections=("qkv", "o", "mlp_in", "mlp_out")),
        ),
        diffusion=DiffusionConfig(process="gaussian"),
        sampler=SamplerConfig(method="ddpm", steps=250),
        # DiT's: AdamW at a constant rate without decay (Peebles & Xie 2023, section 4).
        optimizer=OptimizerConfig(learning_rate=1e-4, schedule="constant"),
        train=TrainConfig(steps=400_000, batch=256, ema=0.9999, null=0.1, log_every=100, checkpoint_every=10_000),
    )
