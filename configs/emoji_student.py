"""A CoCa of half the depth that is distilled module by module from that of the preset emoji.

kind-jax train --config emoji --workdir runs/emoji
kind-jax train --config emoji_student --optima.teacher runs/emoji --workdir runs/emoji_student
"""

from kind_jax.captioning.presets import emoji
from kind_jax.distillation.optima_config import CaptionOptimaRun, OptimaConfig, optima_run


def get_config() -> CaptionOptimaRun:
    return optima_run(emoji(depth=2, steps=1000), OptimaConfig())
