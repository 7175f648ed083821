"""Decomposable diffusion transformers: train once, take apart, ship only the parts each device or domain needs."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kind_jax.config import Config, FactorConfig, ModelConfig, dit, load_file
    from kind_jax.config.presets import preset, presets
    from kind_jax.deploy.bundle import Bundle, export, open_bundle
    from kind_jax.deploy.compose import compose
    from kind_jax.deploy.groups import drop, grow, grow_fresh
    from kind_jax.errors import UserError
    from kind_jax.model import apply, class_gate, init
    from kind_jax.nn.gate import Gate, all_groups, learngenes_only, mixture, one_group
    from kind_jax.partition import concatenate, join, select, split, transplant
    from kind_jax.train.loop import train as fit

# Loaded on first use, so that `import kind_jax` and `kind-jax --help` do not wait for JAX.
_HOMES = {
    "kind_jax.config": ("Config", "FactorConfig", "ModelConfig", "dit", "load_file"),
    "kind_jax.config.presets": ("preset", "presets"),
    "kind_jax.deploy.bundle": ("Bundle", "export", "open_bundle"),
    "kind_jax.deploy.compose": ("compose",),
    "kind_jax.deploy.groups": ("drop", "grow", "grow_fresh"),
    "kind_jax.errors": ("UserError",),
    "kind_jax.model": ("apply", "class_gate", "init"),
    "kind_jax.nn.gate": ("Gate", "all_groups", "learngenes_only", "mixture", "one_group"),
    "kind_jax.partition": ("concatenate", "join", "select", "split", "transplant"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Bundle",
    "Config",
    "FactorConfig",
    "Gate",
    "ModelConfig",
    "UserError",
    "all_groups",
    "apply",
    "class_gate",
    "compose",
    "concatenate",
    "dit",
    "drop",
    "export",
    "fit",
    "grow",
    "grow_fresh",
    "init",
    "join",
    "learngenes_only",
    "load_file",
    "mixture",
    "one_group",
    "open_bundle",
    "preset",
    "presets",
    "select",
    "split",
    "transplant",
]


def __getattr__(name: str) -> Any:
    if name == "fit":  # `kind_jax.train` is the package of the loop
        return importlib.import_module("kind_jax.train.loop").train
    if name not in _HOME_OF:
        raise AttributeError(f"module 'kind_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
