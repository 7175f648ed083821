"""CoCa on emoji: 32 pixels, captions as bytes, a quarter of an hour on a laptop CPU.

make .venv/.emoji
kind-jax train --config emoji --workdir runs/emoji
kind-jax caption runs/emoji
"""

from kind_jax.captioning.config import CaptionRun
from kind_jax.captioning.presets import emoji


def get_config() -> CaptionRun:
    return emoji()
