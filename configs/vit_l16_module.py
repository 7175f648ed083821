"""One of four modules of ViT-L/16, 100 epochs of ImageNet inside the meta model.

kind-jax modules runs/vit_l16 --config vit_l16_module --data.path TFDS --module.meta runs/vit_l16/meta
"""

from kind_jax.assembling.config import ClassifierModuleRun
from kind_jax.assembling.recipes import module


def get_config() -> ClassifierModuleRun:
    return module("L/16")
