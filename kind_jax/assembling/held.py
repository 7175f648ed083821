"""What an artifact of a module holds: a part of its network."""

from __future__ import annotations

from kind_jax.assembling import cuts, modules
from kind_jax.assembling.config import ModuleRun
from kind_jax.partition import Collections


def shapes(config: ModuleRun) -> Collections:
    """Its collections as ShapeDtypeStructs; takes no memory."""
    return modules.shapes(config.model, config.module.depths, config.module.place)


def least_parameters(config: ModuleRun) -> tuple[int, int, int]:
    """What learngenes, params and the tailors of one group hold at least; takes no time, whatever the sizes."""
    if cuts.by_stages(config.model):
        return config.model.least_parameters
    return cuts.resized(config.model, (config.module.depths[config.module.place],)).least_parameters
