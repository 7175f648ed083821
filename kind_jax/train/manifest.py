"""What a checkpoint consists of: SHA-256 and size of every file, in a sealed ``manifest.json`` beside them.

Orbax itself loads an array with a flipped bit without a word, and takes an empty folder for a checkpoint.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pydantic

from kind_jax import __version__, sealed
from kind_jax.config.check import STRICT, problem
from kind_jax.errors import UserError
from kind_jax.files import sha256_file, sync

FILE_NAME = "manifest.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """Content of one file."""

    __pydantic_config__ = STRICT
    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """``manifest.json``: the files of step ``step`` by their path relative to its folder."""

    __pydantic_config__ = STRICT
    format: Literal[1]
    kind_jax: str
    step: int
    files: dict[str, File]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


_ADAPTER = pydantic.TypeAdapter(Manifest)


def write(folder: Path, step: int) -> None:
    """Read every file of a finished save back, push it to the disk, and write down what it holds.

    Raises:
      UserError: a file cannot be read, or the manifest not be written.
    """
    names = sorted(_files(folder))

    def read(name: str) -> File:
        path = folder / name
        sync(path)
        return File(sha256=sha256_file(path), bytes=path.stat().st_size)

    with ThreadPoolExecutor() as pool:  # hashing releases the GIL
        files = dict(zip(names, pool.map(read, names), strict=True))
    manifest = Manifest(format=1, kind_jax=__version__, step=step, files=files)
    sealed.write(folder / FILE_NAME, _ADAPTER.dump_python(manifest, mode="json"))


def read(folder: Path) -> Manifest:
    """The manifest of the checkpoint ``folder``, whose name is its step.

    Raises:
      UserError: it is missing, damaged, or that of another step.
    """
    path = folder / FILE_NAME
    try:
        manifest = _ADAPTER.validate_json(sealed.read(path))
    except pydantic.ValidationError as e:
        raise UserError(f"{path} is not a manifest of this version: {problem(e)}.") from e
    if str(manifest.step) != folder.name:
        raise UserError(f"{path} is of step {manifest.step}, but its folder is named {folder.name}.")
    return manifest


def check_files(folder: Path, manifest: Manifest, without: Collection[str] = ()) -> None:
    """Refuse files that are missing, of another size, or not listed; reads none of them.

    Args:
      without: parts of the checkpoint that do not matter, ``optimizer`` for one.

    Raises:
      UserError: naming the file.
    """
    for name, file in _chosen(manifest, without):
        try:
            found = (folder / name).lstat()
        except FileNotFoundError as e:
            raise UserError(f"{folder / name} is missing, but {FILE_NAME} lists it.") from e
        except OSError as e:
            raise UserError(f"{folder / name} cannot be read: {e.strerror}.") from e
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{folder / name} is a link or no file, but {FILE_NAME} lists it as a file.")
        if found.st_size != file.bytes:
            raise UserError(f"{folder / name} has {found.st_size} bytes, but {FILE_NAME} says {file.bytes}.")
    for name in _files(folder):
        # Hidden files are what systems leave behind (.DS_Store, .nfs...); nothing here reads them.
        if name not in manifest.files and name != FILE_NAME and not Path(name).name.startswith("."):
            raise UserError(f"{folder / name} is not listed in {FILE_NAME}; remove it.")


def check_content(folder: Path, manifest: Manifest, without: Collection[str] = ()) -> None:
    """Refuse a file whose SHA-256 is another one; reads all that :func:`check_files` looks at.

    Raises:
      UserError: naming the file.
    """

    def check(entry: tuple[str, File]) -> None:
        name, file = entry
        found = sha256_file(folder / name)
        if found != file.sha256:
            raise UserError(
                f"{folder / name} has SHA-256 {found[:12]}…, but {FILE_NAME} says {file.sha256[:12]}…: it is damaged."
            )

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(check, _chosen(manifest, without)):
            pass


def _chosen(manifest: Manifest, without: Collection[str]) -> list[tuple[str, File]]:
    return [(name, file) for name, file in manifest.files.items() if name.partition("/")[0] not in without]


def _files(folder: Path) -> Iterator[str]:
    for inside, _, names in os.walk(folder):
        for name in names:
            yield (Path(inside) / name).relative_to(folder).as_posix()
