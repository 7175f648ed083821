"""Curves on Weights & Biases (extra ``wandb``)."""

from __future__ import annotations

import dataclasses
import importlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from kind_jax.errors import UserError
from kind_jax.files import atomic_write_text
from kind_jax.untrusted.regular import read_small

FILE = "wandb_id"  # so that a run that goes on is the same one there


def library(project: str) -> Any:
    """The module wandb.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module("wandb")
    except ImportError as e:
        raise UserError(
            f"train.wandb is {project!r}, but wandb is not installed: pip install 'kind-jax[wandb]'."
        ) from e


class WandbWriter:
    """Logs to a project; whether online, where to and as whom follows from wandb's own environment variables.

    Args:
      directory: the run's, where wandb keeps its files too.
      settings: of the run, shown beside its curves.

    Raises:
      UserError: wandb is not installed, or refuses to begin.
    """

    def __init__(self, directory: str | Path, project: str, settings: Any = None):
        wandb = library(project)
        directory = Path(directory)
        if not (directory / FILE).exists():
            atomic_write_text(directory / FILE, secrets.token_hex(8))
        number = read_small(directory / FILE, 100).decode("ascii", "replace").strip()
        config = dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else {}  # pyright: ignore[reportArgumentType]
        try:
            self._run = wandb.init(
                project=project, name=directory.absolute().name, id=number, resume="allow", dir=str(directory),
                config=config,
            )  # fmt: skip
        except Exception as e:
            raise UserError(f"train.wandb is {project!r}, but wandb could not begin: {type(e).__name__}: {e}.") from e

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        self._run.log({name: float(value) for name, value in values.items()}, step=int(step))

    def close(self) -> None:
        self._run.finish()
