"""The weights with the best held-out accuracy of a run so far, as an artifact in the folder ``best`` of the run."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import pydantic
from jax.experimental import multihost_utils

from kind_jax import partition
from kind_jax.config import RunConfig
from kind_jax.config.check import STRICT, problem
from kind_jax.deploy import artifact
from kind_jax.deploy.bundle import BEST
from kind_jax.errors import UserError
from kind_jax.files import atomic_write_text, sha256_file
from kind_jax.train import hosts
from kind_jax.untrusted import documents
from kind_jax.untrusted.regular import read_small

FOLDER, RECORD = BEST, "best.json"
_LIMIT = 1 << 16  # bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """Why these weights were chosen.

    Attributes:
      step: that they are of.
      split: that they were compared on; a figure on the same split flatters them.
      top1: their accuracy there.
      count: images of the split.
      manifest: SHA-256 of the manifest of the weights, so that no others pass for them.
    """

    __pydantic_config__ = STRICT
    step: pydantic.NonNegativeInt
    split: Literal["validation", "test"]
    top1: Annotated[float, pydantic.Field(ge=0, le=1)]
    count: pydantic.PositiveInt
    manifest: str = ""

    def __str__(self) -> str:
        return f"step {self.step}, the best of its run by {self.split} accuracy ({self.top1:.2%} of {self.count})"


_ADAPTER = pydantic.TypeAdapter(Best)


def read(run: Path) -> Best | None:
    """What is recorded in a run; None where it has kept nothing yet.

    Raises:
      UserError: the record is damaged, or is of other weights than lie beside it.
    """
    path, weights = run / RECORD, run / FOLDER / artifact.MANIFEST
    if not os.path.lexists(path) and not weights.is_file():
        return None
    if not path.is_file() or not weights.is_file():
        raise UserError(f"{run} has one of {RECORD} and {FOLDER}/ alone, but the best weights need both.")
    text = read_small(path, _LIMIT)
    documents.parse(text, path)
    try:
        found = _ADAPTER.validate_json(text)
    except pydantic.ValidationError as e:
        raise UserError(f"{path} is damaged: {problem(e)}.") from e
    if found.manifest != sha256_file(weights):
        raise UserError(f"{path} is of other weights than those in {run / FOLDER}.")
    return found


def _before(run: Path) -> Best | None:
    """The record that a new one has to beat; None where there is none that can be believed, which is then replaced."""
    try:
        return read(run)
    except UserError as e:
        print(f"the best weights of this run are chosen anew: {e}", file=sys.stderr, flush=True)
        for leftover in (run / RECORD, run / FOLDER):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)
        return None


def keep(run: Path, config: RunConfig, collections: partition.Collections, names: tuple[str, ...], found: Best) -> bool:
    """Write ``collections`` as the best weights of a run, if they are: of two alike, those that were first.

    Every host calls it. The weights are there before the record that names them by their hash; a kill between the two
    leaves a pair that does not fit, which the run replaces when it looks next.
    """
    improved = False
    if hosts.is_first():  # decides for all: on a shared folder, others may not see yet what it wrote last
        before = _before(run)
        # A record of a later step is one that this run has not reached yet: it was begun anew, or went back.
        improved = before is None or found.top1 > before.top1 or found.step < before.step
    if jax.process_count() > 1:
        improved = bool(multihost_utils.broadcast_one_to_all(np.asarray(improved)))
    if not improved:
        return False
    weights = jax.tree.map(hosts.whole, collections)
    if hosts.is_first():
        artifact.write(
            run / FOLDER, config=config, collections=weights, class_names=names,
            groups=range(config.model.num_groups),  # pyright: ignore[reportAttributeAccessIssue]
            weights="raw" if config.train.ema is None else "ema", step=found.step, replace=(run / FOLDER).exists(),
        )  # fmt: skip
        named = dataclasses.replace(found, manifest=sha256_file(run / FOLDER / artifact.MANIFEST))
        atomic_write_text(run / RECORD, f"{json.dumps(dataclasses.asdict(named), indent=2)}\n")
    return True
