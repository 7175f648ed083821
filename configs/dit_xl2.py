"""KIND as a DiT-XL/2: the published size on latents of 32 x 32 x 4, tailors for each of 150 classes.

kind-jax plan --config dit_xl2 --mesh 16x16

For plans and benchmarks; configs/dit_xl2_imagenet.py adds the data to train on.
"""

from kind_jax.config import Config, published


def get_config() -> Config:
    return published("XL/2", remat=True)
