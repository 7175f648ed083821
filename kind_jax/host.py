"""Memory of the host.

XLA:CPU asks for one large buffer for the temporaries of every call and frees it afterwards. glibc maps and unmaps such
buffers each time, so that every page of them is zeroed by the kernel anew in every step: 100,000 page faults and a
sixth of the time in a step of a small transformer. Here glibc is told to keep what it has.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import sys

# From malloc.h. One arena, or buffers of worker threads would be mapped whatever the other settings say; no mapping of
# large blocks; never give the top of the heap back, and grow it by 256 MB at a time.
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -8, -4, -1, -2
_SETTINGS = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 << 20))
_ACCELERATORS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")


def computes_on_cpu() -> bool:
    """Whether JAX will run on the CPU, told without starting it."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    return not any(importlib.util.find_spec(name) for name in _ACCELERATORS)


def keep_memory() -> bool:
    """Keep freed memory for the next step; call it before JAX starts its threads.

    Does nothing where an accelerator computes or the C library is not glibc. What a process once needed stays with it
    until it ends.

    Returns:
      Whether the C library took the settings.
    """
    if not sys.platform.startswith("linux") or not computes_on_cpu():
        return False
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        accepted = [libc.mallopt(name, value) for name, value in _SETTINGS]
        return set(accepted) == {1}
    return False
