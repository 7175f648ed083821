"""A small ResNet that tells ten animals apart, 28 x 28 in grey, and learns from a larger network.

kind-jax train --config resnet_animals
kind-jax train --config animals_student --distil.teacher runs/resnet_animals
"""

from kind_jax.config import change
from kind_jax.config.presets import preset
from kind_jax.distillation.config import DistilRun


def get_config() -> DistilRun:
    return change(
        preset("digits_student"),
        model={"size": 28},
        data={"source": "animals", "flip": True, "validation": 0.1},
        train={"steps": 1000, "sample_every": 200},
    )
