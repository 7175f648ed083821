"""The folder ``checkpoints`` of a run as a history: which steps are whole, which one to go on from.

A checkpoint appears under its name, the step's number, by one rename, with its manifest inside; whatever has another
name is not a checkpoint: ``N.saving…`` was cut off, ``N.deleting`` was on its way out, ``N.damaged`` was refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import shutil
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from kind_jax.errors import UserError
from kind_jax.train import manifest

Verify = Literal["auto", "before", "background"]

BACKGROUND = 16 << 30  # bytes from which "auto" hashes while the run goes on; a minute of reading on a common disk


_DAMAGE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


def steps(directory: Path) -> list[int]:
    """Steps that have a folder, in order."""
    if not directory.is_dir():
        return []
    names = [p.name for p in directory.iterdir()]
    return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]{0,17}", name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The newest step that passed.

    Attributes:
      step: None if there is no checkpoint at all.
      refused: a sentence for each newer one.
      bytes: its size.
      verified: whether its content was read; otherwise only names and sizes were looked at.
    """

    step: int | None
    refused: tuple[str, ...] = ()
    bytes: int = 0
    verified: bool = True


def latest_good(directory: Path, without: Collection[str] = (), *, verify: Verify = "before") -> Found:
    """Walk back from the newest step to the first that is whole and undamaged.

    Args:
      directory: the folder ``checkpoints``.
      without: parts that do not matter, see :func:`kind_jax.train.manifest.check_files`.
      verify: whether the content is read ``before`` the step is taken, later (``background``), or by its size
        (``auto``).

    Raises:
      UserError: there are steps, but none of them is good; every refusal is named.
    """
    refused = []
    there = steps(directory)
    for step in reversed(there):
        folder = directory / str(step)
        try:
            listed = manifest.read(folder)
            manifest.check_files(folder, listed, without)
            later = verify == "background" or (verify == "auto" and listed.bytes > BACKGROUND)
            if not later:
                manifest.check_content(folder, listed, without)
        except UserError as e:
            if not folder.exists() and steps(directory) != there:  # the run goes on, and has removed it meanwhile
                return latest_good(directory, without, verify=verify)
            if isinstance(e.__cause__, OSError) and not isinstance(e.__cause__, _DAMAGE):
                raise  # it cannot be read now (permissions, a server that does not answer), which may pass
            refused.append(str(e))
            continue
        return Found(step=step, refused=tuple(refused), bytes=listed.bytes, verified=not later)
    if refused:
        raise UserError(
            f"{directory} has no good checkpoint: {' '.join(refused)} Put back a copy, or begin in another folder."
        )
    return Found(step=None)


def set_aside(directory: Path, step: int) -> Path:
    """Rename a step that was refused, so that nothing overwrites it and no later start meets it again."""
    suffixes = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    names = (f"{step}.damaged{suffix}" for suffix in suffixes)
    target = next(path for path in map(directory.joinpath, names) if not os.path.lexists(path))
    (directory / str(step)).rename(target)
    return target


def remove_leftovers(directory: Path) -> None:
    """Remove what an interrupted save or removal left behind; only the owner of the run may do so."""
    for path in directory.iterdir():
        number, _, rest = path.name.partition(".")
        if number.isdecimal() and rest.startswith(("saving", "deleting")):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def commit(directory: Path, step: int, saved: Path) -> None:
    """Give a finished save its name, in place of an older one of the same step."""
    target = directory / str(step)
    if target.exists():
        _remove(target)
    os.rename(saved, target)


def prune(directory: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` steps."""
    for step in steps(directory)[:-keep]:
        _remove(directory / str(step))


def _remove(folder: Path) -> None:
    # Renamed first: a step that is half deleted must not look like a damaged one.
    away = folder.with_name(f"{folder.name}.deleting")
    shutil.rmtree(away, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(away)
        shutil.rmtree(away, ignore_errors=True)


class Verification:
    """Reads a very large checkpoint while the run goes on from it; nothing may be saved before it has passed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._problem: UserError | None = None
        self._thread = threading.Thread(target=self._read, name="verification", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            manifest.check_content(self._folder, manifest.read(self._folder))
        except UserError as e:
            self._problem = e

    def problem(self, *, wait: bool) -> UserError | None:
        """What was found, so far or, with ``wait``, in the end."""
        if wait:
            self._thread.join()
        return self._problem
