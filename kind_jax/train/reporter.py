"""What a run says while it goes on: a progress line, metrics.jsonl, and how long it waited for what."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from kind_jax.data.bad import BadRecords
from kind_jax.train import hosts
from kind_jax.train.lock import check_present
from kind_jax.train.meter import Meter, describe
from kind_jax.train.metrics import FILE_NAME, Callback, make_writer, read_metrics
from kind_jax.train.progress import Progress
from kind_jax.train.task import Metrics, Task


class Reporter:
    """A context manager around the steps. Metrics are read one step late, so that the device never waits for the host.

    Args:
      begin: ``time.monotonic()`` of the run's beginning.
      check: refuses the numbers of a step that ends the run.
      callbacks: get what metrics.jsonl gets.

    Attributes:
      bad: the records that were skipped; whatever reads a batch tells it.
    """

    def __init__(
        self,
        task: Task,
        directory: Path,
        dataset: Any,
        start: int,
        *,
        begin: float,
        check: Callable[[Any], None],
        callbacks: Sequence[Callback] = (),
    ) -> None:
        config, first = task.config, hosts.is_first()
        self._directory, self._start, self._begin, self._check = directory, start, begin, check
        self._anew = start == 0 and first and bool(read_metrics(directory / FILE_NAME))
        self._writer = None
        if first:
            self._writer = make_writer(
                directory, config.train.tensorboard, start, wandb=config.train.wandb, settings=config,
                callbacks=callbacks,
            )  # fmt: skip
        self._meter = Meter(task.flops())
        self._progress = Progress(
            total=config.train.steps, start=start, images_per_step=config.train.batch,
            stream=None if first else io.StringIO(),
        )  # fmt: skip
        self._pending: tuple[int, Metrics, dict[str, float]] | None = None
        self.log = self._progress.log
        self.bad = BadRecords(dataset, config.data.skip_bad, self.log if first else _complain)

    @contextlib.contextmanager
    def open(self, notes: list[str]) -> Iterator[None]:
        """Around the steps: shows the progress, and says first how the run begins."""
        with self._progress:
            for note in notes:
                self.log(note)
            if self._start:
                self.log(f"resuming {self._directory} at step {self._start}")
            if self._anew:
                self.log(f"{self._directory} has no checkpoint yet: beginning again at step 0")
            yield

    def close(self) -> None:
        """Finish the files of metrics."""
        if self._writer is not None:
            self._writer.close()

    def waiting(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Book the time inside as ``what``, see :class:`kind_jax.train.meter.Meter`."""
        return self._meter.waiting(what)

    def watching(self, done: int) -> contextlib.AbstractContextManager[None]:
        """Around what a task shows of a step."""
        self.log(f"looking at step {done} ...")
        return self.waiting("watching")

    def watched(self, done: int, figures: Mapping[str, float]) -> None:
        """Log the figures that came out, beside the metrics of the step where these are noted."""
        if not figures:
            return
        self.log(f"step {done}: " + ", ".join(f"{n.replace('_', ' ')} {value:.4g}" for n, value in figures.items()))
        if self._pending is not None and self._pending[0] == done:
            self._pending = (done, self._pending[1], {**self._pending[2], **figures})
        elif self._writer is not None:
            check_present(self._directory)
            self._writer.write(done, figures)

    def turned(self, figures: tuple[int, Mapping[str, float]] | None) -> None:
        """Write the figures of a turn, and the step behind which it came."""
        if figures is not None and self._writer is not None:
            check_present(self._directory)
            self._writer.write(*figures)

    def stepped(self, done: int, metrics: Metrics, before: Metrics | None) -> None:
        """A step was dispatched, and the one before it has ended with the metrics ``before``."""
        if before is None:
            self._progress.begin(done, float(metrics["loss"]), time.monotonic() - self._begin)
        elif self._pending is not None:
            self.report()
        elif self._progress.silent:
            self._progress.update(done - 1, float(before["loss"]))

    def note(self, done: int, metrics: Metrics) -> None:
        """Report the metrics of this step once they are there."""
        self._pending = (done, metrics, self._meter.read())

    def report(self, *, last: bool = False) -> None:
        """Read and write the metrics that were noted; those of the ``last`` step are not read late, so the time at
        which they are read says nothing about the speed."""
        if self._pending is None:
            return
        (at, metrics, waits), self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()} | waits
        self._check(values)
        del values["nonfinite_row"]
        check_present(self._directory)
        if self.bad.count:
            values["bad_records"] = self.bad.count
        progress = self._progress
        progress.update(at, values["loss"], describe(waits), timed=not last)
        if progress.steps_per_second is not None:
            values["steps_per_second"] = progress.steps_per_second
            values["images_per_second"] = progress.images_per_second or 0.0
            if (mfu := self._meter.mfu(progress.steps_per_second)) is not None:
                values["mfu"] = mfu
        if self._writer is not None:
            self._writer.write(at, values)

    def summary(self) -> str:
        """How long steps waited for what."""
        return self._meter.summary()


def _complain(message: str) -> None:
    """Every host reads its own part of the data, and only the first one has a progress bar."""
    print(f"process {jax.process_index()}: {message}", file=sys.stderr, flush=True)
