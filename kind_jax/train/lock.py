"""One process a run directory: two trainings in one directory would destroy each other's checkpoints."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable

FILE_NAME = ".lock"

_held: dict[int, Path] = {}


def _close_in_child() -> None:
    # A forked child shares the lock of its parent: a worker that outlives a killed owner would keep it locked.
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


def _owner(descriptor: int) -> str:
    pid, _, host = os.pread(descriptor, 200, 0).decode(errors="replace").strip().partition(" ")
    return printable(f"process {pid} on {host}", 80) if pid else "another process"


def holder(directory: Path) -> str | None:
    """The host of the process that holds a run directory, as its lock file names it; None if nobody does.

    The lock itself is not touched, so that looking never stands in the way of a run that begins. Of another host's
    process nobody can say here whether it has been killed.
    """
    try:
        text = (directory / FILE_NAME).read_bytes()[:200].decode(errors="replace")
    except OSError:
        return None
    pid, _, host = text.strip().partition(" ")
    if not pid.isdecimal():
        return None
    if host == socket.gethostname():
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, OverflowError):
            return None
        except PermissionError:
            pass
    return printable(host, 80)


def check_present(directory: Path) -> None:
    """Before something is written: the folder is still the one that was locked; missing folders would be made anew.

    Raises:
      UserError: this process locked it, and it has been removed, moved or replaced since.
    """
    for descriptor, held in _held.items():
        if held == directory:
            try:
                same = os.path.samestat(os.stat(directory / FILE_NAME), os.fstat(descriptor))
            except OSError:
                same = False
            if not same:
                raise UserError(
                    f"The run directory {str(directory)!r} was removed, moved or replaced while the run was going on; "
                    "put it back, and the same command continues from its last checkpoint."
                )


@contextlib.contextmanager
def run_lock(directory: str | Path) -> Iterator[None]:
    """Hold a run directory for this process; it is created if absent.

    The kernel drops the lock when the owner dies, however it dies, so a stale ``.lock`` file never blocks a run. The
    file stays behind, since deleting it could break a lock that another process is just taking.

    Raises:
      UserError: a living process holds the directory (its pid is named), or the directory cannot be locked.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / FILE_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as e:
        raise UserError(f"The directory {str(directory)!r} could not be locked: {e.strerror}.") from e
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
    except BlockingIOError as e:
        owner = _owner(descriptor)
        os.close(descriptor)
        raise UserError(
            f"The directory {str(directory)!r} is in use by {owner}, but only one process may write to it."
        ) from e
    except OSError as e:
        os.close(descriptor)
        raise UserError(f"The directory {str(directory)!r} could not be locked: {e.strerror}.") from e
    _held[descriptor] = directory
    try:
        yield
    finally:
        if descriptor in _held:  # not so in a forked child that leaves the block: the lock is its parent's
            del _held[descriptor]
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
