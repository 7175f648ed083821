"""The curves of a run: JSON lines always, TensorBoard and others on request."""

import importlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, SupportsFloat, runtime_checkable

from kind_jax import sealed
from kind_jax.errors import UserError
from kind_jax.files import atomic_write_bytes
from kind_jax.train.wandb import WandbWriter, library
from kind_jax.untrusted import documents

FILE_NAME = "metrics.jsonl"
_LIMIT = 1 << 30  # bytes, millions of lines

# JSON has no such numbers; as strings they survive every parser, and a diverged run stays visible.
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@runtime_checkable
class MetricWriter(Protocol):
    """Takes named numbers of a step."""

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Record ``values`` (Python, NumPy or JAX scalars) as of ``step``."""
        ...

    def close(self) -> None:
        """Flush and release the file; no write may follow."""
        ...


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    where = f"{str(path)!r}, line {number}: found {line[:80]!r}, but"
    try:
        row = documents.parse(line, path)
    except UserError as e:
        raise UserError(f"{where} it must be JSON with a 'step'.") from e
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        raise UserError(f"{where} it must be JSON with a 'step'.")
    row = {name: _SPECIAL.get(value, value) if isinstance(value, str) else value for name, value in row.items()}
    if not all(type(value) in (int, float) for value in row.values()):
        raise UserError(f"{where} every value must be a number.")
    return row


def _lines(path: Path) -> list[bytes]:
    if not os.path.lexists(path):
        return []
    content = sealed.read_small(path, _LIMIT)
    # A line without its newline was cut off by a kill: the writer ends each line in the same write.
    return content.split(b"\n")[:-1]


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """All complete lines of a metrics file, in order; an absent file has none.

    Raises:
      UserError: unreadable, or a line that is no metrics line; its number is named.
    """
    path = Path(path)
    return [_parse(line, path, i) for i, line in enumerate(_lines(path), 1)]


class JsonLinesWriter:
    """Appends one JSON object a line, ``{"step": 100, "loss": 0.25}``; NaN and infinity are strings.

    Opening drops the lines of steps after ``resume_step``, which will be computed again, and a line cut off by a
    kill. The file is rewritten atomically, and only if there is something to drop.

    Raises:
      UserError: the file cannot be read or written, or holds a line that is no metrics line.
    """

    def __init__(self, path: str | Path, resume_step: int = 0):
        path = Path(path)
        lines = _lines(path)
        kept = [line for i, line in enumerate(lines, 1) if _parse(line, path, i)["step"] <= resume_step]
        content = b"".join(line + b"\n" for line in kept)
        if not path.exists() or path.stat().st_size != len(content):
            atomic_write_bytes(path, content)
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        except OSError as e:
            raise UserError(f"{str(path)!r} could not be written: {e.strerror}.") from e
        self._path = path

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        assert "step" not in values, "the name 'step' is taken"
        row: dict[str, Any] = {"step": int(step)}
        for name, value in values.items():
            number = float(value)
            row[name] = number if math.isfinite(number) else str(number)
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        try:
            written = os.write(self._descriptor, line)
        except OSError as e:
            raise UserError(f"{str(self._path)!r} could not be written: {e.strerror}.") from e
        if written < len(line):  # what a disk does that fills up in the middle of a line
            raise UserError(f"{str(self._path)!r} could not be written: {written} of {len(line)} bytes fitted.")

    def close(self) -> None:
        os.close(self._descriptor)


def check_extras(tensorboard: bool, wandb: str | None) -> None:
    """Refuse curves whose library is not here, before anything of a run is written.

    Raises:
      UserError: naming the extra.
    """
    if tensorboard:
        _tensorboard()
    if wandb is not None:
        library(wandb)


def _tensorboard() -> Any:
    try:
        return importlib.import_module("tensorboardX")
    except ImportError as e:
        raise UserError(
            "TensorBoard output was asked for, but it needs tensorboardX, which is not installed: "
            "pip install 'kind-jax[tensorboard]'."
        ) from e


class TensorBoardWriter:
    """Writes event files through tensorboardX, hiding earlier events of steps after ``resume_step``.

    Raises:
      UserError: tensorboardX is not installed.
    """

    def __init__(self, directory: str | Path, resume_step: int = 0):
        tensorboard = _tensorboard()
        # A purge is asked for on resume only: in a fresh folder there is nothing to hide.
        purge = resume_step + 1 if resume_step else None
        self._writer = tensorboard.SummaryWriter(str(directory), purge_step=purge)

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        try:
            for name, value in values.items():
                self._writer.add_scalar(name, float(value), int(step))
            self._writer.flush()
        except OSError as e:
            raise UserError(f"TensorBoard's event file could not be written: {e.strerror or e}.") from e

    def close(self) -> None:
        self._writer.close()


Callback = Callable[[int, Mapping[str, float]], object]
"""Takes the number of a step and its metrics by name."""


class _Calls:
    """Hands everything to a callback, which needs no end."""

    def __init__(self, callback: Callback):
        self._callback = callback

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        self._callback(int(step), {name: float(value) for name, value in values.items()})

    def close(self) -> None:
        pass


class _All:
    def __init__(self, *writers: MetricWriter):
        self._writers = writers

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        numbers = {name: float(value) for name, value in values.items()}  # fetched from the device once
        for writer in self._writers:
            writer.write(step, numbers)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


def make_writer(
    directory: str | Path,
    tensorboard: bool = False,
    resume_step: int = 0,
    *,
    wandb: str | None = None,
    settings: Any = None,
    callbacks: Sequence[Callback] = (),
) -> MetricWriter:
    """The writer of a run: ``metrics.jsonl`` in its directory, and whatever else is asked for.

    Args:
      directory: the run's directory.
      tensorboard: whether event files are written too, in ``tensorboard/`` (needs the ``tensorboard`` extra).
      resume_step: the step that the run continues from, 0 for a new run; later records are dropped.
      wandb: project of Weights & Biases (needs the ``wandb`` extra); None is none.
      settings: of the run, for Weights & Biases.
      callbacks: of the program that trains.

    Raises:
      UserError: an extra is missing, or a file cannot be read or written.
    """
    board = [TensorBoardWriter(Path(directory) / "tensorboard", resume_step)] if tensorboard else []
    lines = JsonLinesWriter(Path(directory) / FILE_NAME, resume_step)
    online = [] if wandb is None else [WandbWriter(directory, wandb, settings)]
    others = [*board, *online, *map(_Calls, callbacks)]
    return _All(lines, *others) if others else lines
