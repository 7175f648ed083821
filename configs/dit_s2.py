"""KIND as a DiT-S/2: the published size on latents of 32 x 32 x 4, tailors for each of 150 classes.

kind-jax plan --config dit_s2 --mesh 8x1

For plans and benchmarks. To train it: --data.source latents --data.protocol kind-base --data.flip --data.path LATENTS
"""

from kind_jax.config import Config, published


def get_config() -> Config:
    return published("S/2")
