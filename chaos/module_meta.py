"""The meta model around the modules of module.py."""

import dataclasses

from chaos.module import get_config as module
from kind_jax.assembling import cuts
from kind_jax.assembling.config import whole_run
from kind_jax.classifying.config import ClassifyRun


def get_config() -> ClassifyRun:
    found = module()
    settings = dataclasses.replace(found.train, steps=4)
    return whole_run(found, model=cuts.resized(found.model, found.module.around), train=settings)
