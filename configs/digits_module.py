"""One of two modules of the KIND model of digits, inside a meta model of two blocks.

kind-jax train --config digits --model.depth 2 --workdir runs/modules/meta
kind-jax modules runs/modules --config digits_module --module.meta runs/modules/meta
"""

from kind_jax.assembling.config import DiffusionModuleRun, ModuleConfig, module_run
from kind_jax.config import change
from kind_jax.config.presets import preset


def get_config() -> DiffusionModuleRun:
    whole = change(preset("digits"), train={"steps": 1500, "checkpoint_every": 500, "sample_every": 500})
    return module_run(whole, ModuleConfig(depths=(2, 2)))
