"""The meta model of a run that trains a module: opened, and compared with what the module needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from kind_jax.assembling import cuts, modules
from kind_jax.assembling.config import ModuleRun, whole_run
from kind_jax.classes import mismatch
from kind_jax.deploy.bundle import Bundle, open_bundle
from kind_jax.errors import UserError
from kind_jax.partition import Collections, fingerprint


def weights(config: ModuleRun) -> Collections:
    """The weights of the meta model as NumPy arrays.

    Raises:
      UserError: it cannot be opened, does not fit, or is another one than the run began with.
    """
    bundle = _opened(config)
    found = fingerprint(bundle.collections)
    if found != config.module.source:
        raise _another(config, found)
    return {name: jax.tree.map(np.asarray, tree) for name, tree in bundle.collections.items()}


def check(config: ModuleRun, class_names: Sequence[str]) -> tuple[str, list[str]]:
    """The SHA-256 of the meta model's weights, and remarks about it.

    Raises:
      UserError: it cannot be opened, or does not fit the module or the data.
    """
    bundle = _opened(config)
    if (odd := mismatch(bundle.class_names, class_names)) is not None:
        raise UserError(
            f"module.meta is {str(config.module.meta)!r}, but its classes must be those of the data: {odd}."
        )
    found, remarks = fingerprint(bundle.collections), []
    if config.module.source not in (None, found):
        raise _another(config, found)
    steps = bundle.config.train.steps
    if bundle.step < steps and (bundle.origin / "config.json").is_file():
        remarks = [f"warning: the meta model has trained for {bundle.step:,} of its {steps:,} steps"]
    return found, remarks


def _another(config: ModuleRun, found: str) -> UserError:
    return UserError(
        f"module.meta is {str(config.module.meta)!r}, whose weights have the SHA-256 {found[:12]}…, but this module "
        f"began in a meta model with {str(config.module.source)[:12]}…: it is trained in one meta model alone."
    )


def _opened(config: ModuleRun) -> Bundle:
    settings = config.module
    if settings.meta is None:
        raise UserError("module.meta is missing, but it must name the meta model: a run or an artifact.")
    whole = whole_run(config)
    path = Path(settings.meta)
    if not path.is_dir():
        raise UserError(f"module.meta is {settings.meta!r}, but it must be a run or an artifact.")
    bundle = open_bundle(path, kind=type(whole))
    wanted = cuts.resized(config.model, settings.around)
    if type(bundle.config.model) is not type(wanted):
        raise UserError(
            f"module.meta is {settings.meta!r}, a {type(bundle.config.model).__name__}, but the module is of a "
            f"{type(wanted).__name__}."
        )
    for name, need, found in modules.differences(wanted, bundle.config.model):
        raise UserError(f"module.meta has model.{name} {found!r:.200}, but the module's network has {need!r:.200}.")
    for name, need, found in modules.other_settings(whole, bundle.config):
        raise UserError(f"{name} is {need!r:.200}, but module.meta, {settings.meta!r}, has {found!r:.200}.")
    have, need = cuts.blocks(bundle.config.model), settings.around
    fits = tuple(bundle.config.model.blocks) == need if cuts.by_stages(wanted) else have == sum(need)
    if not fits:
        found = f"stages of {bundle.config.model.blocks} blocks" if cuts.by_stages(wanted) else f"{have} blocks"
        wanted = f"{need}" if cuts.by_stages(wanted) else f"{sum(need)}, {need} (module.meta_depths)"
        raise UserError(f"module.meta is {settings.meta!r}, with {found}, but it must have {wanted}.")
    if bundle.groups != tuple(range(config.model.num_groups)):
        raise UserError(f"module.meta is {settings.meta!r}, which lacks tailors of some groups, but all are needed.")
    return bundle
