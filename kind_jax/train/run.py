"""A run directory: whose it is, and whether this config may continue it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from kind_jax import config as configs
from kind_jax.config import Config
from kind_jax.errors import UserError
from kind_jax.files import atomic_write_text

# Settings that change neither the weights nor the input stream: a resumed run may have others.
_FREE = (
    "data.path", "data.workers", "mesh.", "model.contraction", "model.remat", "model.scan_unroll", "sampler.",
    "train.checkpoint_every", "train.keep", "train.log_every", "train.profile", "train.sample_every",
    "train.tensorboard",
)  # fmt: skip


def check(directory: Path, config: Config) -> None:
    """Refuse a folder that is not free for this run and not its own; changes nothing.

    Raises:
      UserError: the folder holds something else, or a run with another config; every setting that differs is named.
    """
    saved = directory / "config.json"
    if saved.is_file():
        differences = _differences(load_config(directory), config)
        if differences:
            raise UserError(
                f"{directory} belongs to a run with another config: {'; '.join(differences)}; "
                "give this run another --workdir, or the saved settings."
            )
    elif directory.exists() and (not directory.is_dir() or any(p.name != ".lock" for p in directory.iterdir())):
        raise UserError(f"--workdir is {str(directory)!r}, which is not a run and not empty; choose another folder.")


def save_config(directory: Path, config: Config) -> None:
    """Write config.json, the sign that the folder is a run's."""
    atomic_write_text(directory / "config.json", configs.to_json(config))


def load_config(directory: Path) -> Config:
    """The config that a run saved.

    Raises:
      UserError: ``directory`` is not a run, or its config is damaged.
    """
    path = directory / "config.json"
    try:
        return configs.from_json(path.read_bytes(), str(path))
    except OSError as e:
        raise UserError(f"{directory} is not a run: it has no readable config.json.") from e


def _differences(old: Config, new: Config) -> list[str]:
    before, now = _leaves(dataclasses.asdict(old)), _leaves(dataclasses.asdict(new))
    free = _FREE + (("train.steps",) if new.optimizer.schedule == "constant" else ())
    return [
        f"{name} was {before[name]!r}, now {now[name]!r}"
        for name in before
        if before[name] != now[name] and not name.startswith(free)
    ]


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
