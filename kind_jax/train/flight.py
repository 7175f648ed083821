"""How far the host may run ahead of the device."""

from __future__ import annotations

import time
from typing import Any

import jax

_LONG = 0.5  # seconds of waiting for a step from which on signals are heard while waiting
_POLL = 0.02  # seconds


class Flight:
    """Keeps one step on the device and one waiting for it, which is all that a device needs to be never idle.

    Without a bound JAX queues dozens of steps: a run that is asked to stop would compute all of them first.
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._long = False

    def add(self, outputs: Any) -> Any:
        """Wait for the outputs of the step before, and return them.

        Args:
          outputs: arrays of a step that has just been dispatched, not donated to any other.

        Returns:
          Those of the step before; None after the first step.
        """
        before, self._before = self._before, outputs
        begin = time.monotonic()
        # A handler of Python waits for a call to return, so that a long call would keep a signal waiting.
        while self._long and not all(array.is_ready() for array in jax.tree.leaves(before)):
            time.sleep(_POLL)
        jax.block_until_ready(before)
        self._long = time.monotonic() - begin > _LONG
        return before
