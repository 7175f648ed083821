"""KIND as a DiT-L/2 on ImageNet 256 x 256: the 150 base classes of the KIND protocol, from latents on disk.

kind-jax train --config dit_l2_imagenet --data.path LATENTS
kind-jax plan --config dit_l2_imagenet --mesh 1x8 --chip h100

docs/imagenet.md has the whole way, from ImageNet's archives to samples, and what fits which machine.
"""

from kind_jax.config import Config, imagenet


def get_config() -> Config:
    return imagenet("L/2", remat=True)
