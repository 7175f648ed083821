"""KIND as a DiT-L/2: the published size on latents of 32 x 32 x 4, tailors for each of 150 classes.

kind-jax plan --config dit_l2 --mesh 8x4

For plans and benchmarks; configs/dit_l2_imagenet.py adds the data to train on.
"""

from kind_jax.config import Config, published


def get_config() -> Config:
    return published("L/2", remat=True)
