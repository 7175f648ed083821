"""Ending a process from any of its threads, whatever the others wait for."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
from typing import NoReturn

EXIT_RESTARTABLE = 75  # EX_TEMPFAIL of sysexits.h

_ending = threading.Lock()


def die(sentence: str, code: int = EXIT_RESTARTABLE) -> NoReturn:
    """Say one sentence and end; nothing of JAX or Orbax is run, which would wait for hosts that are lost.

    Of several threads that want to end the process, the first one has the word.
    """
    _ending.acquire()  # for good
    # The main thread may hold a stream that nobody reads: give it a second.
    flush = threading.Thread(target=_flush, daemon=True)
    flush.start()
    flush.join(1.0)
    for child in multiprocessing.active_children():  # workers of the input
        with contextlib.suppress(Exception):
            child.kill()
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides it
    with contextlib.suppress(OSError):
        os.write(2, f"{show_cursor}error: {sentence}\n".encode())
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
