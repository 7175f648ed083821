"""ViT-B/16, assembled of four modules, fine-tuned for 100 epochs of ImageNet.

kind-jax train --config vit_b16_assembled --data.path TFDS --init runs/vit_b16/assembled --workdir runs/vit_b16/tuned
"""

from kind_jax.assembling.recipes import assembled
from kind_jax.classifying.config import ClassifyRun


def get_config() -> ClassifyRun:
    return assembled("B/16")
