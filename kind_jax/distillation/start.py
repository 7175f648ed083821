"""How a run that distils begins: a fresh student, or one that was trained before (``--init``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from kind_jax.classifying import start
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import is_of
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy.bundle import open_bundle
from kind_jax.distillation.config import DistilRun, distil_run, student_run
from kind_jax.distillation.task import DistilTask, beside
from kind_jax.errors import UserError
from kind_jax.partition import Collections
from kind_jax.train.run import load_config
from kind_jax.transferring.whole import check_classes


def defaults(base: DistilRun, init: Path | None, directory: Path) -> DistilRun:
    """``base`` that knows which teacher the run in ``directory`` began with, and with the network that it began from.

    Raises:
      UserError: ``init`` is neither a run nor an artifact of a classifier.
    """
    saved = _saved(directory)
    if saved is not None:
        base = dataclasses.replace(base, distil=dataclasses.replace(base.distil, source=saved.distil.source))
    if init is not None:
        return distil_run(start.defaults(student_run(base), init, directory), base.distil)
    if saved is not None and saved.source is not None:
        return distil_run(start.adopt(student_run(base), student_run(saved)), base.distil)
    return base


def begin_run(
    config: DistilRun, init: Path | None, directory: Path
) -> tuple[DistilRun, Callable[[], Collections] | None]:
    """The complete config of a run, and what gives the weights of step 0 where they are another model's.

    Raises:
      UserError: the teacher is missing, or a setting or a class contradicts the model that the student begins from.
    """
    if config.distil.teacher is None and config.distil.taught:
        raise UserError("distil.teacher is missing, but it must name a classifier: a run or an artifact.")
    saved = _saved(directory)
    if init is None:
        return (config if saved is None else dataclasses.replace(config, source=saved.source)), None
    bundle, dataset = open_bundle(init, kind=ClassifyRun), open_dataset(config.data, "train")
    student, weights = start.begin(student_run(config), bundle)
    if saved is not None:
        start.check_beginning(saved, student, directory)
    if config.head == "keep" and (remark := check_classes(bundle, dataset.class_names)) is not None:
        print(remark)
    config = distil_run(student, config.distil)
    return config, lambda: weights | beside(DistilTask(config).bound(dataset, begins=True)[0].config)


def _saved(directory: Path) -> DistilRun | None:
    """The config of the run in ``directory``; None if there is none of this kind."""
    if not (directory / "config.json").is_file():
        return None
    saved = load_config(directory)  # one of another kind is refused where the settings are compared
    return saved if is_of(saved, DistilRun) else None
