"""Stopping a run from outside: steps under way end, a checkpoint is written, and the same command continues."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from kind_jax import interrupts

_SAID = b"\nstopping after the step under way, with a checkpoint; a second signal stops at once\n"


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that becomes true when the process is asked to stop; the second request stops it at once.

    With several hosts the list stays empty: SIGTERM belongs to JAX's preemption service, which tells all of them, and
    Ctrl-C is passed to it.
    """
    received = interrupts.pending()  # one that a library swallowed meanwhile
    alone = jax.process_count() == 1

    def note(number: int, frame: Any) -> None:
        del frame
        for n in previous:
            signal.signal(n, signal.SIG_DFL)
        if alone:
            received.append(number)
            # Not print: the signal may have come in the middle of one.
            os.write(2, _SAID)
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    previous: dict[int, Any] = {}
    try:
        for n in (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,):
            previous[n] = signal.signal(n, note)
    except ValueError:  # not the main thread: signals stay as they are
        previous = {}
    try:
        yield received
    finally:
        for n, handler in previous.items():
            signal.signal(n, handler)
