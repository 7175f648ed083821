"""Opening a file only if it is one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kind_jax.errors import UserError
from kind_jax.untrusted import hub


@contextlib.contextmanager
def open_regular(path: Path, *, links: bool = True) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file and its size in bytes; a pipe or device, which may never end, is not read.

    Args:
      links: whether a symbolic link is followed; False still takes one from a snapshot to a blob in the cache of
        huggingface_hub (:mod:`kind_jax.untrusted.hub`).

    Raises:
      UserError: naming the file and what it is instead. An OSError while it is open becomes one too.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for somebody who writes to it.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags) if links else _open_own(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path} is not a file.")
            yield file, status.st_size
    except FileNotFoundError as e:
        raise UserError(f"{path} is missing.") from e
    except IsADirectoryError as e:
        raise UserError(f"{path} is not a file.") from e
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise UserError(f"{path} is a symbolic link, but it must be a file; copy what it is in with cp -rL.") from e
        raise UserError(f"{path} cannot be read: {e.strerror or e}.") from e


def _open_own(path: Path, flags: int) -> int:
    """Open a file without following a link, but for those of huggingface_hub's cache."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW)
    except OSError as e:
        if e.errno != errno.ELOOP or (target := hub.blob(path)) is None:
            raise
    return hub.open_blob(target, flags)


def read_small(path: Path, limit: int, *, links: bool = True) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
      UserError: as :func:`open_regular`, or it is larger.
    """
    with open_regular(path, links=links) as (file, size):
        if size > limit:
            raise UserError(f"{path} has {size} bytes, but it must have at most {limit}.")
        return read_exactly(file, size, path)


def read_exactly(file: BinaryIO, count: int, path: Path) -> bytes:
    """``count`` bytes, which the caller has compared with the size of the file.

    Raises:
      UserError: the file ends before.
    """
    data = file.read(count)
    if len(data) < count:
        raise UserError(f"{path} became shorter while it was read.")
    return data
