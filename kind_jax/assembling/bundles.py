"""Models in hand, from runs and artifacts: dividing one into modules, and assembling modules into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from kind_jax.assembling import modules
from kind_jax.assembling.config import ClassifierModuleRun, DiffusionModuleRun, ModuleConfig, module_run, whole_run
from kind_jax.assembling.modules import Module
from kind_jax.config import RunConfig
from kind_jax.deploy.bundle import Bundle, check_bundle
from kind_jax.errors import UserError


def divide_bundle(bundle: Bundle, depths: Sequence[int]) -> list[Bundle]:
    """The modules of a finished model, each a bundle that can be exported; :func:`assemble_bundles` is the inverse.

    Raises:
      UserError: see :func:`kind_jax.assembling.divide`.
    """
    check_bundle(bundle, kind=RunConfig)
    if isinstance(bundle.config, ClassifierModuleRun | DiffusionModuleRun):
        raise UserError(f"{bundle.origin} is a module already, but it must be a whole model.")
    if bundle.composition is not None:
        raise UserError(f"{bundle.origin} was composed; divide the model that it was composed from.")
    weights = {name: jax.tree.map(np.asarray, tree) for name, tree in bundle.collections.items()}
    _check_groups(bundle)
    found = modules.divide(bundle.config.model, weights, depths)
    return [
        dataclasses.replace(
            bundle,
            config=module_run(bundle.config, ModuleConfig(depths=each.depths, index=each.index, source=each.source)),
            collections=each.collections,
        )
        for each in found
    ]


def module_of(bundle: Bundle) -> Module:
    """The module that a bundle holds.

    Raises:
      UserError: it is a whole model, or has not begun to train in a meta model.
    """
    check_bundle(bundle, kind=RunConfig)
    config = bundle.config
    if not isinstance(config, ClassifierModuleRun | DiffusionModuleRun):
        raise UserError(f"{bundle.origin} is of the kind {config.task!r}, but it must be a module.")
    _check_groups(bundle)
    return Module(
        network=config.model,
        depths=config.module.depths,
        index=config.module.place,
        collections=bundle.collections,
        source=config.module.source or "",
        name=str(bundle.origin),
    )


def assemble_bundles(bundles: Sequence[Bundle]) -> Bundle:
    """The whole model of modules in their order, with the settings of the first one's run.

    Raises:
      UserError: see :func:`kind_jax.assembling.assemble`; or their classes, kinds or weights (averaged or not) differ.
    """
    bundles = list(bundles)
    parts = [module_of(bundle) for bundle in bundles]
    whole = modules.assemble(parts)
    first = bundles[0]
    for other in bundles[1:]:
        if first.config.task == other.config.task:
            for name, wanted, found in modules.other_settings(whole_run(first.config), whole_run(other.config)):
                raise UserError(
                    f"{name} of {other.origin} is {found!r:.200}, but that of {first.origin} is {wanted!r:.200}."
                )
        for name, wanted, found in (
            ("kind", first.config.task, other.config.task),
            ("classes", first.class_names, other.class_names),
            ("weights", first.weights, other.weights),
        ):
            if wanted != found:
                raise UserError(
                    f"the {name} of {other.origin} are {found!r:.200}, but those of {first.origin} are {wanted!r:.200}."
                )
    return dataclasses.replace(
        first,
        config=whole_run(first.config, model=whole.network),
        collections=whole.collections,
        step=max(each.step for each in bundles),
    )


def _check_groups(bundle: Bundle) -> None:
    if bundle.groups != tuple(range(bundle.config.model.num_groups)):
        raise UserError(f"{bundle.origin} lacks the tailors of some groups, but all are needed here.")
