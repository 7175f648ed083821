"""How a run of a module begins: inside its meta model, and from no other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from kind_jax.assembling.config import ClassifierModuleRun, DiffusionModuleRun, ModuleRun
from kind_jax.errors import UserError
from kind_jax.train.run import load_config


def defaults(base: ModuleRun, init: Path | None, directory: Path) -> ModuleRun:
    """``base`` that knows in which meta model the run in ``directory`` began, if there is one.

    Raises:
      UserError: ``--init`` is given.
    """
    if init is not None:
        raise UserError(
            f"--init is {str(init)!r}, but a module begins inside a meta model, which is module.meta; a whole network "
            "that was assembled begins with --init."
        )
    if not (directory / "config.json").is_file():
        return base
    saved = load_config(directory)  # one of another kind is refused where the settings are compared
    if not isinstance(saved, ClassifierModuleRun | DiffusionModuleRun) or saved.task != base.task:
        return base
    return dataclasses.replace(base, module=dataclasses.replace(base.module, source=saved.module.source))


def begin_run(config: ModuleRun, init: Path | None, directory: Path) -> tuple[ModuleRun, None]:
    """The config of a run, whose first weights its task gives.

    Raises:
      UserError: it does not say which module, or in which meta model.
    """
    del init, directory
    _ = config.module.place
    if config.module.meta is None and len(config.module.depths) > 1:
        raise UserError("module.meta is missing, but it must name the meta model: a run or an artifact.")
    return config, None
