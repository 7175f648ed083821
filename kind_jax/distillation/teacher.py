"""The teacher of a run: opened, and compared with what the student needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from kind_jax.classes import mismatch
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config.networks import Network
from kind_jax.deploy.bundle import Bundle, open_bundle
from kind_jax.distillation.config import DistilRun
from kind_jax.errors import UserError
from kind_jax.partition import Collections, fingerprint
from kind_jax.transferring.whole import settings_of


class Known(NamedTuple):
    """What a run records of its teacher: its network, the SHA-256 of its weights; and remarks about it."""

    network: Network
    source: str
    remarks: list[str]


def weights(config: DistilRun) -> Collections:
    """The weights of the teacher as NumPy arrays.

    Raises:
      UserError: it cannot be opened, or is another one than the run began with.
    """
    bundle = _opened(config)
    found = fingerprint(bundle.collections)
    if found != config.distil.source:
        raise another(config.distil, found)
    return {name: jax.tree.map(np.asarray, tree) for name, tree in bundle.collections.items()}


def check(config: DistilRun, class_names: Sequence[str]) -> Known:
    """What is to be recorded of the teacher.

    Raises:
      UserError: it cannot be opened, does not fit the student or the data, or is another one than the run began with.
    """
    bundle = _opened(config)
    if (odd := mismatch(bundle.class_names, class_names)) is not None:
        raise UserError(
            f"distil.teacher is {str(config.distil.teacher)!r}, but its classes must be those of the data, in their "
            f"order: {odd}."
        )
    network, student, remarks = bundle.config.model, config.model, []
    for name in ("size", "channels"):
        if getattr(network, name) != getattr(student, name):
            raise UserError(
                f"distil.teacher is {str(config.distil.teacher)!r}, which takes images with {name} "
                f"{getattr(network, name)}, but the student's model.{name} is {getattr(student, name)}: both see the "
                "same images, and model.resolution scales them for either."
            )
    if bundle.groups != tuple(range(network.num_groups)):
        raise UserError(
            f"distil.teacher is {str(config.distil.teacher)!r}, which lacks tailors of some superclasses, but all are "
            "needed."
        )
    found = fingerprint(bundle.collections)
    if config.distil.source not in (None, found):
        raise another(config.distil, found)
    steps = bundle.config.train.steps
    if bundle.step < steps and (bundle.origin / "config.json").is_file():
        remarks = [f"warning: the teacher has trained for {bundle.step:,} of its {steps:,} steps"]
    if network.gated and not student.gated:
        remarks.append(
            "warning: the teacher is told the superclass of every image, and so gives classes of others no weight; the "
            "student is not told"
        )
    return Known(network, found, remarks)


def network(config: DistilRun) -> Network:
    """The teacher's network, without opening its weights.

    Raises:
      UserError: there is no teacher.
    """
    return settings_of(_place(config), ClassifyRun, "distil.teacher").model


def another(settings: Any, found: str, name: str = "distil.teacher") -> UserError:
    """The refusal of a teacher with the SHA-256 ``found``, which the setting ``name`` names."""
    return UserError(
        f"{name} is {settings.teacher!r}, whose weights have the SHA-256 {found[:12]}…, but this run began "
        f"with a teacher with {str(settings.source)[:12]}…: a student has one teacher alone."
    )


def _opened(config: DistilRun) -> Bundle:
    path = _place(config)
    try:
        return open_bundle(path, kind=ClassifyRun)
    except UserError as e:
        raise UserError(f"distil.teacher is {str(path)!r}, which cannot teach: {e}") from e


def _place(config: DistilRun) -> Path:
    where = config.distil.teacher
    if where is None:
        raise UserError("distil.teacher is missing, but it must name a classifier: a run or an artifact.")
    if not Path(where).is_dir():
        raise UserError(f"distil.teacher is {where!r}, but it must be a classifier: a run or an artifact.")
    return Path(where)
