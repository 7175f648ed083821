"""KIND as a DiT-B/2: the published size on latents of 32 x 32 x 4, tailors for each of 150 classes.

kind-jax plan --config dit_b2 --mesh 8x1

For plans and benchmarks; configs/dit_b2_imagenet.py adds the data to train on.
"""

from kind_jax.config import Config, published


def get_config() -> Config:
    return published("B/2")
