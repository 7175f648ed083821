"""The meta model of ViT-H/14: four blocks, 300 epochs of ImageNet (Deep Model Assembling).

kind-jax train --config vit_h14_meta --data.path TFDS --workdir runs/vit_h14/meta
"""

from kind_jax.assembling.recipes import meta
from kind_jax.classifying.config import ClassifyRun


def get_config() -> ClassifyRun:
    return meta("H/14")
