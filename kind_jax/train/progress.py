"""What a training run tells whoever watches it: a live bar on a terminal, plain lines in a log file."""

import collections
import sys
import time
from collections.abc import Callable, Sequence
from io import StringIO
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

_WINDOW = 20  # updates that the speed is averaged over: steady to read, yet a change of pace shows soon
_SILENCE, _LIVE_SILENCE = 30.0, 2.0  # seconds without an update: of a log file, of a terminal


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Context manager that shows step, loss, speed and time left.

    The clock starts at the first :meth:`update` or :meth:`begin`, so the compilation of the first step is never part of
    the speed: a loop that calls it after its very first step sees the speed from the next update on. The speed is
    wall-clock time over the latest updates; pauses for checkpoints and samples count, as the time left depends on them
    too.

    Args:
      total: step at which the run ends.
      start: step that the run starts or resumes from.
      images_per_step: images in one step, over all devices.
      stream: where to write; None is standard output.
      clock: seconds, increasing.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        images_per_step: int = 1,
        *,
        stream: TextIO | StringIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._total, self._step, self._images = total, start, images_per_step
        self._stream = sys.stdout if stream is None else stream
        self._clock = clock
        self._marks: collections.deque[tuple[float, int]] = collections.deque(maxlen=_WINDOW + 1)
        self._console = Console(file=self._stream)
        # Not rich's own opinion: it believes FORCE_COLOR, which continuous integration sets for log files too.
        live = self._stream.isatty() and not self._console.is_dumb_terminal
        self._bar = self._make_bar() if live else None
        self._task = None
        self._silence = _LIVE_SILENCE if live else _SILENCE
        self._spoken = clock()

    def _make_bar(self) -> RichProgress:
        return RichProgress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            expand=True,
        )

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("step", total=self._total, completed=self._step, facts="compiling ...")
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def steps_per_second(self) -> float | None:
        """Speed over the latest updates, None before the second one."""
        if len(self._marks) < 2:
            return None
        (time_a, step_a), (time_b, step_b) = self._marks[0], self._marks[-1]
        return (step_b - step_a) / max(time_b - time_a, 1e-9)

    @property
    def images_per_second(self) -> float | None:
        """Like :attr:`steps_per_second`, in images."""
        speed = self.steps_per_second
        return None if speed is None else speed * self._images

    def update(self, step: int, loss: float, more: Sequence[str] = (), *, timed: bool = True) -> None:
        """Show that ``step`` steps are done, the last with ``loss``; call it every so many steps, not every step.

        Args:
          more: other facts to show.
          timed: whether the time of this call tells the speed.
        """
        self._mark(step, timed=timed)
        facts = "  ".join([*self._facts(loss), *more])
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, facts=facts)
        else:
            self._print(f"step {step}/{self._total}  {facts}")

    def begin(self, step: int, loss: float, seconds: float) -> None:
        """Show that the first step is done, number ``step``, and that it took ``seconds`` from the start."""
        self._mark(step, timed=True)
        self.log(f"step {step}/{self._total} after {seconds:.0f} s  loss {float(loss):.4f}")

    @property
    def silent(self) -> bool:
        """Whether an update is due, since there has been none for long."""
        return self._clock() - self._spoken > self._silence

    def _mark(self, step: int, *, timed: bool) -> None:
        now = self._clock()
        if timed and not (self._marks and self._marks[-1][1] == step):
            self._marks.append((now, step))
        self._step, self._spoken = step, now

    def log(self, message: str) -> None:
        """Print a line of its own, above the bar if there is one."""
        if self._bar is not None:
            self._console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            self._print(message)

    def _facts(self, loss: float) -> list[str]:
        speed, images = self.steps_per_second, self.images_per_second
        facts = [f"loss {float(loss):.4f}"]
        if speed and images:
            digits = 1 if speed < 100 else 0
            facts += [f"{speed:.{digits}f} steps/s" if speed >= 1 else f"{1 / speed:.2f} s/step"]
            facts += [f"{images:.{0 if images >= 10 else 1}f} images/s"]
            facts += [f"ETA {_duration(max(self._total - self._step, 0) / speed)}"]
        return facts

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
