"""CoCa of 2.1 billion parameters on captions of COCO (Yu et al. 2022).

kind-jax train --config coca_2b --text.tokenizer clip --model.vocabulary 49408 --data.path TFDS
kind-jax plan --config coca_2b --mesh 8x1 --chip h100
"""

from kind_jax.captioning.config import CaptionRun
from kind_jax.captioning.presets import published


def get_config() -> CaptionRun:
    return published("2b")
