"""The weights with the best held-out accuracy of a run so far, as an artifact in the folder ``best`` of the run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

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
from kind_jax.files import atomic_write_text
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
    """

    __pydantic_config__ = STRICT
    step: pydantic.NonNegativeInt
    split: str
    top1: float
    count: pydantic.PositiveInt

    def __str__(self) -> str:
        return f"step {self.step}, the best of its run by {self.split} accuracy ({self.top1:.2%} of {self.count})"


_ADAPTER = pydantic.TypeAdapter(Best)


def read(run: Path) -> Best | None:
    """What is recorded in a run; None where it has kept nothing yet.

    Raises:
      UserError: the record is damaged.
    """
    path = run / RECORD
    if not path.is_file():
        return None
    text = read_small(path, _LIMIT)
    documents.parse(text, path)
    try:
        return _ADAPTER.validate_json(text)
    except pydantic.ValidationError as e:
        raise UserError(f"{path} is damaged: {problem(e)}.") from e


def keep(run: Path, config: RunConfig, collections: partition.Collections, names: tuple[str, ...], found: Best) -> bool:
    """Write ``collections`` as the best weights of a run, if they are: of two alike, those that were first.

    Every host calls it. The weights are there before the record names them, so a kill between the two leaves weights
    that are a little better than their record says, until the same step is reached again.
    """
    improved = False
    if hosts.is_first():  # decides for all: on a shared folder, others may not see yet what it wrote last
        before = read(run)
        improved = before is None or found.top1 > before.top1
    if jax.process_count() > 1:
        improved = bool(multihost_utils.broadcast_one_to_all(np.asarray(improved)))
    if not improved:
        return False
    weights = jax.tree.map(_whole, collections)
    if hosts.is_first():
        artifact.write(
            run / FOLDER, config=config, collections=weights, class_names=names,
            groups=range(config.model.num_groups),  # pyright: ignore[reportAttributeAccessIssue]
            weights="raw" if config.train.ema is None else "ema", step=found.step, replace=(run / FOLDER).exists(),
        )  # fmt: skip
        atomic_write_text(run / RECORD, f"{json.dumps(dataclasses.asdict(found), indent=2)}\n")
    return True


def _whole(leaf: Any) -> np.ndarray:
    """An array on the host, of which other hosts may hold parts."""
    if jax.process_count() > 1 and not leaf.is_fully_replicated:
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(jax.device_get(leaf))
