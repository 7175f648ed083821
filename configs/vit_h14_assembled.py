"""ViT-H/14, assembled of four modules, fine-tuned for 100 epochs of ImageNet.

kind-jax train --config vit_h14_assembled --data.path TFDS --init runs/vit_h14/assembled --workdir runs/vit_h14/tuned
"""

from kind_jax.assembling.recipes import assembled
from kind_jax.classifying.config import ClassifyRun


def get_config() -> ClassifyRun:
    return assembled("H/14")
