"""Output that is either whole or absent: every file and folder is written beside its target, then renamed."""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from kind_jax.errors import UserError


def _user_error(path: Path, action: str, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    inner = error.filename
    # The temporary name means nothing to the user; a file that the caller was reading does.
    elsewhere = isinstance(inner, str) and ".tmp" not in inner and inner != str(path)
    return UserError(f"{str(path)!r} could not be {action}: {reason}{f' ({inner!r})' if elsewhere else ''}.")


def _temporary_sibling(target: Path) -> Path:
    # A sibling, since a rename is atomic only inside one file system. Hidden, so that globs do not meet it.
    name = os.fsencode(target.name)[:100].decode(errors="ignore")  # a name has at most 255 bytes
    return target.parent / f".{name}.{secrets.token_hex(6)}.tmp"


_LEFTOVER = re.compile(r"\..*\.[0-9a-f]{12}\.tmp\Z", re.DOTALL)  # the names that _temporary_sibling gives


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is an unfinished one, which a process that was killed leaves behind."""
    return bool(_LEFTOVER.match(name))


def sweep(folder: Path) -> None:
    """Delete unfinished files in ``folder``, if it exists; only for who knows that nobody is writing there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_leftover(path.name) and not path.is_dir():
            with contextlib.suppress(OSError):
                path.unlink()


def sync(path: Path) -> None:
    """Push one file or one directory entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new one, never a part, even after a crash.

    Missing parent folders are created. A symbolic link is followed. A device or pipe is written to directly.

    Raises:
      UserError: the file cannot be written (disk full, read-only, a folder is in the way); path and reason are named.
    """
    named = Path(path)
    temporary: Path | None = None
    try:
        target = Path(os.path.realpath(named))
        if _special(target):  # a rename would replace /dev/stdout by a file
            target.write_bytes(data)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_sibling(target)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync(target.parent)
    except OSError as e:
        raise _user_error(named, "written", e) from e
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):  # gone already after a success; the first error is the one to report
                temporary.unlink()


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text through :func:`atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode())


def _swap_in(temporary: Path, target: Path, replace: bool) -> None:
    if not (replace and target.exists()):
        os.rename(temporary, target)
        return
    old = _temporary_sibling(target)
    os.rename(target, old)
    try:
        os.rename(temporary, target)
    except BaseException:
        os.rename(old, target)
        raise
    shutil.rmtree(old)


def _refuse_existing(named: Path, target: Path, replace: bool) -> None:
    if not os.path.lexists(target):
        return
    if not replace:
        raise UserError(f"{str(named)!r} exists already, but it must be a new folder.")
    if not target.is_dir():
        raise UserError(f"{str(named)!r} is a file, but only a folder can be replaced by a folder.")


@contextlib.contextmanager
def atomic_directory(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Fill a folder under a temporary name; it gets its own name only if the block succeeds.

    The folder is removed if the block raises, Ctrl-C included. With ``replace`` an existing folder is moved aside
    for the swap and deleted after it, with all that it holds: callers check first that it is theirs to delete.

    Yields:
      The temporary folder to write into.

    Raises:
      UserError: the target exists (without ``replace``) or is a file, or an OSError in the block or the swap; the
        path and the reason are named.
    """
    named = Path(path)
    target = Path(os.path.realpath(named))
    _refuse_existing(named, target, replace)
    temporary = _temporary_sibling(target)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for folder, _, files in os.walk(temporary):
            for name in files:
                sync(Path(folder, name))
            sync(Path(folder))
        _refuse_existing(named, target, replace)  # the block may have taken hours
        _swap_in(temporary, target, replace)
        sync(target.parent)
    except OSError as e:
        raise _user_error(named, "written", e) from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's content in lower-case hexadecimal.

    Raises:
      UserError: the file cannot be read; path and reason are named.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise _user_error(path, "read", e) from e
