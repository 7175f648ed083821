"""The meta model of ViT-L/16: four blocks, 300 epochs of ImageNet (Deep Model Assembling).

kind-jax train --config vit_l16_meta --data.path TFDS --workdir runs/vit_l16/meta
"""

from kind_jax.assembling.recipes import meta
from kind_jax.classifying.config import ClassifyRun


def get_config() -> ClassifyRun:
    return meta("L/16")
