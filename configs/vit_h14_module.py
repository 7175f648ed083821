"""One of four modules of ViT-H/14, 100 epochs of ImageNet inside the meta model.

kind-jax modules runs/vit_h14 --config vit_h14_module --data.path TFDS --module.meta runs/vit_h14/meta
"""

from kind_jax.assembling.config import ClassifierModuleRun
from kind_jax.assembling.recipes import module


def get_config() -> ClassifierModuleRun:
    return module("H/14")
