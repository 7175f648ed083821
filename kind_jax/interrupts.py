"""Ctrl-C and SIGTERM in any command: what is half written is cleaned up, and the process ends, whatever it was doing.

Python's own KeyboardInterrupt gets lost: callbacks of libraries swallow it, extension modules that are being imported
make an ImportError of it, and threads of XLA that still compute crash an interpreter that shuts down.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_received: list[int] = []
_running = False


def received() -> list[int]:
    """Signals that have come so far, the first one first."""
    return list(_received)


def pending() -> list[int]:
    """Signals that a library has swallowed: they came, and the command that they were for goes on."""
    return list(_received) if _running else []


@contextmanager
def interruptible() -> Iterator[None]:
    """The first signal raises KeyboardInterrupt, a second one ends the process at once; see :func:`received`."""
    global _running
    _received.clear()

    def note(number: int, frame: Any) -> None:
        del frame
        _received.append(number)
        if len(_received) > 1:
            os._exit(128 + number)
        raise KeyboardInterrupt

    previous = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: signals stay as they are
        pass
    _running = True
    try:
        yield
    finally:
        _running = False
        for number, handler in previous.items():
            signal.signal(number, handler)


def leave(code: int) -> None:
    """End the process; after a signal without Python's own end, which waits for threads or crashes with them."""
    if _received:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
