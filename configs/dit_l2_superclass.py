"""KIND as a DiT-L/2 for one GPU: base classes of one superclass share tailors, 19 groups instead of 150.

kind-jax train --config dit_l2_superclass --data.path LATENTS
kind-jax plan --config dit_l2_superclass --mesh 1x1 --chip h100 --train.accumulate 16

All else is configs/dit_l2_imagenet.py. The label embedding tells classes of a group apart.
"""

from kind_jax.config import Config, imagenet
from kind_jax.data.classes import superclasses


def get_config() -> Config:
    groups, _ = superclasses("kind-base")
    return imagenet("L/2", remat=True, groups=groups)
