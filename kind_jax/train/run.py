"""A run directory: whose it is, and whether this config may continue it."""

from __future__ import annotations

import dataclasses
import os
import typing
from pathlib import Path

from kind_jax import config as configs
from kind_jax.config import RunConfig, is_of
from kind_jax.config.roles import EXTEND, RESUME, Role, compare
from kind_jax.config.run import LIMIT
from kind_jax.errors import UserError
from kind_jax.files import atomic_write_text, is_leftover, sweep
from kind_jax.train.lock import FILE_NAME
from kind_jax.untrusted.regular import read_small

C = typing.TypeVar("C", bound=RunConfig)


def with_places(config: RunConfig) -> RunConfig:
    """``config`` with absolute paths in ``data``, which hold wherever the run is used later.

    URLs like gs://bucket/data are places already.
    """
    places = {name: _place(getattr(config.data, name)) for name in ("path", "vae", "mix")}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **places))


def _place(path: str | None) -> str | None:
    if not path or "://" in path:
        return path
    return os.path.abspath(os.path.expanduser(path))


def check(directory: Path, config: RunConfig, *, extend: bool = False) -> list[str]:
    """Refuse a folder that is not free for this run and not its own; changes nothing.

    Args:
      extend: whether the run in the folder may become longer, and go on at other rates.

    Returns:
      A remark where the run in the folder may go on with this config, but not with the same bits.

    Raises:
      UserError: the folder holds something else, or a run with another config; every setting that differs is named.
    """
    try:
        os.path.abspath(directory).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"--workdir is {str(directory)!r}, but its whole path must be text in UTF-8, for checkpoints to be written "
            "there; where it looks like that, set LC_ALL to a UTF-8 locale such as C.UTF-8."
        ) from None
    saved = directory / "config.json"
    if saved.is_file():
        before = load_config(directory)
        if changed := differences(before, config, extend=extend):
            cure = "give this run another --workdir, or the saved settings"
            if not extend and not differences(before, config, extend=True):
                cure += ", or extend it (--extend)"
            raise UserError(f"{directory} belongs to a run with another config: {'; '.join(changed)}; {cure}.")
        rounding = compare(before, config, {Role.ROUNDING})
        if rounding:
            return [
                f"{'; '.join(map(str, rounding))}: the run goes on, but its last digits will not be those that it "
                "would have had"
            ]
    elif extend:
        raise UserError(f"{str(directory)!r} is to be extended, but it is not a run: it has no config.json.")
    elif directory.exists() and (not directory.is_dir() or any(not _begun(p.name) for p in directory.iterdir())):
        raise UserError(f"--workdir is {str(directory)!r}, which is not a run and not empty; choose another folder.")
    else:
        _check_outside(directory, config)
    return []


def _check_outside(directory: Path, config: RunConfig) -> None:
    own = config.data.path if config.data.source == "folder" else None
    for setting, path in (("data.path", own), ("data.mix", config.data.mix)):
        if path is not None and directory.resolve().is_relative_to(Path(path).resolve()):
            raise UserError(
                f"--workdir is {str(directory)!r}, inside {setting}, {str(Path(path).resolve())!r}: the run's pictures "
                "would become training images; choose a folder outside of it."
            )


def _begun(name: str) -> bool:
    """What a run leaves that was killed before it had written its config."""
    return name == FILE_NAME or is_leftover(name)


def save_config(directory: Path, config: RunConfig) -> None:
    """Write config.json, the sign that the folder is a run's."""
    sweep(directory)
    atomic_write_text(directory / "config.json", configs.to_json(config))


def load_config(directory: Path, kind: type[C] = RunConfig) -> C:
    """The config that a run saved.

    Args:
      kind: what it must be the config of; RunConfig is any.

    Raises:
      UserError: ``directory`` is not a run, its config is damaged, or it is a run of another kind.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} is not a run: it has no config.json.")
    config = configs.from_json(read_small(path, LIMIT), str(path))
    if not is_of(config, kind):
        raise UserError(f"{directory} is a run of the kind {config.task!r}, but it must be one of {kind.task!r} here.")
    return config


def differences(saved: RunConfig, config: RunConfig, *, extend: bool = False) -> list[str]:
    """Settings of a saved config that are others now and may not be, like ``train.batch was 8, now 16``.

    Args:
      extend: whether the length and the rates may be.
    """
    if saved.task != config.task:
        return [f"task was {saved.task!r}, now {config.task!r}"]
    # Without a schedule that ends with the run, a longer run has the same beginning.
    agree = EXTEND if extend else RESUME - ({Role.LENGTH} if config.optimizer.schedule == "constant" else set())
    found = [str(each) for each in compare(saved, config, agree)]
    mixed = (saved.data.mix is not None, config.data.mix is not None)  # where the images lie may change, but not that
    return found + ([f"data.mix was {saved.data.mix!r}, now {config.data.mix!r}"] if mixed[0] != mixed[1] else [])
