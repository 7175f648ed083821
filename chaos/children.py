"""Commands as processes that start at once: forked from one that has imported everything but made no device."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import kind_jax.cli
import kind_jax.commands.train
import kind_jax.train.loop


def fork(work: Callable[[], int], output: Path) -> int:
    """Run ``work`` in a child whose output goes to a file; returns its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def command(args: Sequence[object], output: Path) -> int:
    """``kind-jax`` with these arguments in a child."""
    return fork(lambda: kind_jax.cli.main([str(a) for a in args]), output)


def wait(pid: int, seconds: float = 300.0) -> int | None:
    """The exit code of a child, negative for a signal; None, after killing it, if it did not end in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None


def run(args: Sequence[object], output: Path) -> tuple[int | None, str]:
    """``kind-jax`` to its end: exit code and output."""
    code = wait(command(args, output))
    return code, output.read_text(errors="replace")
