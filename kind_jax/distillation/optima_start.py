"""How a run begins that distils module by module: a fresh student, one of its teacher's layers, or one that was trained
before (``--init``)."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kind_jax.distillation.optima import OptimaTask
from kind_jax.distillation.optima_config import PLAIN, optima_run, student_run
from kind_jax.errors import UserError
from kind_jax.kinds import KINDS
from kind_jax.nn.init import Initializer
from kind_jax.partition import Collections
from kind_jax.train.run import load_config


def defaults(base: Any, init: Path | None, directory: Path) -> Any:
    """``base`` that knows which teacher the run in ``directory`` began with, and with the network that it began from.

    Raises:
      UserError: ``init`` is neither a run nor an artifact of such a model.
    """
    saved, settings = _saved(base, directory), base.optima
    if saved is not None:
        settings = dataclasses.replace(settings, source=saved.optima.source, network=saved.optima.network)
    student = _plain(base).defaults(student_run(base), init, directory)
    return optima_run(student, settings)


def begin_run(config: Any, init: Path | None, directory: Path) -> tuple[Any, Callable[[], Collections] | None]:
    """The complete config of a run, and what gives the weights of step 0 where they are another model's.

    Raises:
      UserError: the teacher is missing, or a setting contradicts the model that the student begins from.
    """
    if config.optima.teacher is None:
        raise UserError("optima.teacher is missing, but it must name a model: a run or an artifact.")
    if init is not None and config.optima.init == "teacher":
        raise UserError(
            "optima.init is 'teacher', but it must be 'random' where --init names what a student begins from."
        )
    student, weights = _plain(config).begin_run(student_run(config), init, directory)
    config = optima_run(student, config.optima)
    if weights is None:
        return config, None

    def beside() -> Collections:
        from kind_jax.data.dataset import open_dataset

        task, _ = OptimaTask(config).bound(open_dataset(config.data, "train"), begins=True)
        return weights() | task.beside(Initializer(task.config.train.seed))

    return config, beside


def _plain(config: Any) -> Any:
    """How a plain run of the student begins."""
    where = KINDS[PLAIN[type(config)].task].start
    assert where is not None

    return importlib.import_module(where)


def _saved(config: Any, directory: Path) -> Any:
    """The config of the run in ``directory``; None if there is none of this kind."""
    if not (directory / "config.json").is_file():
        return None
    saved = load_config(directory)  # one of another kind is refused where the settings are compared
    return saved if type(saved) is type(config) else None
