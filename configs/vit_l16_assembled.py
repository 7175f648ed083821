"""ViT-L/16, assembled of four modules, fine-tuned for 100 epochs of ImageNet.

kind-jax train --config vit_l16_assembled --data.path TFDS --init runs/vit_l16/assembled --workdir runs/vit_l16/tuned
"""

from kind_jax.assembling.recipes import assembled
from kind_jax.classifying.config import ClassifyRun


def get_config() -> ClassifyRun:
    return assembled("L/16")
