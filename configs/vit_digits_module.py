"""One of four modules of the deep vision transformer that reads digits, inside a meta model of four blocks.

kind-jax train --config vit_digits --model.depth 4 --workdir runs/assemble/meta
kind-jax modules runs/assemble --config vit_digits_module --module.meta runs/assemble/meta
"""

from kind_jax.assembling.config import ClassifierModuleRun, ModuleConfig, module_run
from kind_jax.config import change
from kind_jax.config.presets import preset


def get_config() -> ClassifierModuleRun:
    whole = change(preset("vit_digits"), train={"steps": 300, "checkpoint_every": 150})
    return module_run(whole, ModuleConfig(depths=(3, 3, 3, 3)))
