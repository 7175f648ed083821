"""KIND as a DiT-S/2: the published size on latents of 32 x 32 x 4, tailors for each of 150 classes.

kind-jax plan --config configs/dit_s2.py --mesh 8x1

It can be planned and benchmarked today. Training needs a data source of latents; until there is one, kind-jax train
refuses it with the shapes that do not match.
"""

from kind_jax.config import Config, published


def get_config() -> Config:
    return published("S/2")
