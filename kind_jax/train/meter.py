"""Where the wall time of a run goes, and how much of the hardware it uses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import jax

from kind_jax.chips import peak_flops

WAITS = ("input_wait", "checkpoint_stall", "watching")


class Meter:
    """Shares of the wall time that steps wait for something, and speed, between one :meth:`read` and the next.

    Args:
      flops: of one step, over all devices.

    Attributes:
      total: seconds of each wait since the beginning.
    """

    def __init__(self, flops: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._flops = flops
        devices = jax.devices()
        peak = peak_flops(devices[0].device_kind)
        self._peak = None if peak is None else peak * len(devices)
        self._spent: dict[str, float] = {}
        self._since = self._begin = clock()
        self.total: dict[str, float] = {}

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Book the time inside as ``what``, one of ``WAITS``."""
        begin = self._clock()
        try:
            yield
        finally:
            seconds = self._clock() - begin
            self._spent[what] = self._spent.get(what, 0.0) + seconds
            self.total[what] = self.total.get(what, 0.0) + seconds

    def read(self) -> dict[str, float]:
        """``input_wait``, ``checkpoint_stall`` and ``watching`` as shares of the wall time since the last reading."""
        now = self._clock()
        wall = max(now - self._since, 1e-9)
        shares = {what: self._spent.get(what, 0.0) / wall for what in WAITS}
        self._spent, self._since = {}, now
        return shares

    def mfu(self, steps_per_second: float) -> float | None:
        """Model FLOPs utilisation: the share of the hardware's peak that the products use, where it is known."""
        return None if self._peak is None else steps_per_second * self._flops / self._peak

    def summary(self) -> str:
        """All waits since the beginning, like ``input wait 0.1 %, checkpoint stall 1.2 %, watching 3.0 % of 120 s``."""
        wall = max(self._clock() - self._begin, 1e-9)
        waits = ", ".join(f"{name.replace('_', ' ')} {100 * self.total.get(name, 0.0) / wall:.1f} %" for name in WAITS)
        return f"{waits} of {wall:.0f} s"


def describe(values: dict[str, float]) -> list[str]:
    """What of :meth:`Meter.read` belongs on a progress line: waits that are worth a look."""
    return [f"{name.replace('_', ' ')} {100 * values[name]:.0f} %" for name in WAITS if values[name] > 0.03]
