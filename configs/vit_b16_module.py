"""One of four modules of ViT-B/16, 100 epochs of ImageNet inside the meta model.

kind-jax modules runs/vit_b16 --config vit_b16_module --data.path TFDS --module.meta runs/vit_b16/meta
"""

from kind_jax.assembling.config import ClassifierModuleRun
from kind_jax.assembling.recipes import module


def get_config() -> ClassifierModuleRun:
    return module("B/16")
