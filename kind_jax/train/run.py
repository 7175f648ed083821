"""A run directory: whose it is, and whether this config may continue it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from kind_jax import config as configs
from kind_jax.config import Config
from kind_jax.config.run import LIMIT
from kind_jax.errors import UserError
from kind_jax.files import atomic_write_text, is_leftover, sweep
from kind_jax.train.lock import FILE_NAME
from kind_jax.untrusted.regular import read_small

# Settings that change neither the weights nor the input stream: a resumed run may have others.
_FREE = (
    "data.path", "data.skip_bad", "data.vae", "data.workers", "mesh.", "model.contraction", "model.remat",
    "model.scan_unroll", "sampler.", "train.checkpoint_every", "train.keep", "train.log_every", "train.profile",
    "train.sample_every", "train.skip_nonfinite", "train.tensorboard", "train.verify",
)  # fmt: skip


def with_places(config: Config) -> Config:
    """``config`` with absolute paths in ``data.path`` and ``data.vae``, which hold wherever the run is used later.

    URLs like gs://bucket/data are places already.
    """
    places = {name: _place(getattr(config.data, name)) for name in ("path", "vae")}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **places))


def _place(path: str | None) -> str | None:
    if not path or "://" in path:
        return path
    return os.path.abspath(os.path.expanduser(path))


def check(directory: Path, config: Config) -> None:
    """Refuse a folder that is not free for this run and not its own; changes nothing.

    Raises:
      UserError: the folder holds something else, or a run with another config; every setting that differs is named.
    """
    saved = directory / "config.json"
    if saved.is_file():
        changed = differences(json.loads(configs.to_json(load_config(directory))), config)
        if changed:
            raise UserError(
                f"{directory} belongs to a run with another config: {'; '.join(changed)}; "
                "give this run another --workdir, or the saved settings."
            )
    elif directory.exists() and (not directory.is_dir() or any(not _begun(p.name) for p in directory.iterdir())):
        raise UserError(f"--workdir is {str(directory)!r}, which is not a run and not empty; choose another folder.")


def _begun(name: str) -> bool:
    """What a run leaves that was killed before it had written its config."""
    return name == FILE_NAME or is_leftover(name)


def save_config(directory: Path, config: Config) -> None:
    """Write config.json, the sign that the folder is a run's."""
    sweep(directory)
    atomic_write_text(directory / "config.json", configs.to_json(config))


def load_config(directory: Path) -> Config:
    """The config that a run saved.

    Raises:
      UserError: ``directory`` is not a run, or its config is damaged.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} is not a run: it has no config.json.")
    return configs.from_json(read_small(path, LIMIT), str(path))


def differences(saved: dict[str, Any], config: Config) -> list[str]:
    """Settings of a saved config (as JSON values) that are others now and may not be, like ``train.batch was 8, now
    16``."""
    before, now = _leaves(saved), _leaves(json.loads(configs.to_json(config)))
    free = _FREE + (("train.steps",) if config.optimizer.schedule == "constant" else ())
    return [
        f"{name} was {before.get(name, 'absent')!r}, now {now.get(name, 'absent')!r}"
        for name in {**before, **now}
        if (name not in before or name not in now or before[name] != now[name]) and not name.startswith(free)
    ]


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
