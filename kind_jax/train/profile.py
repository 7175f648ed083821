"""A window of steps under the profiler, for TensorBoard's or Perfetto's trace viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax


class Profile:
    """Traces steps ``window[0]`` to ``window[1]`` into ``directory``; does nothing without a window."""

    def __init__(self, directory: Path, window: tuple[int, int] | None) -> None:
        self._directory, self._window, self._running = directory, window, False

    def before(self, step: int) -> None:
        """Call before ``step`` is dispatched."""
        if self._window is not None and not self._running and self._window[0] <= step <= self._window[1]:
            jax.profiler.start_trace(str(self._directory))
            self._running = True

    def after(self, step: int, result: Any) -> None:
        """Call after ``step`` was dispatched; waits for ``result`` where the window ends."""
        if self._window is not None and self._running and step >= self._window[1]:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """End a window that is still open."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
