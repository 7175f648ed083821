"""A folder with the runs of all modules of a network, and how far they are."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from kind_jax.assembling.config import ClassifierModuleRun, DiffusionModuleRun, ModuleRun
from kind_jax.deploy.artifact import MANIFEST, read_manifest
from kind_jax.errors import UserError
from kind_jax.train import history
from kind_jax.train.lock import holder
from kind_jax.train.metrics import FILE_NAME, read_metrics
from kind_jax.train.run import load_config

_NAME = re.compile(r"module-(\d+)")

State = Literal["not begun", "running", "stopped", "finished"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """One module's run, or the artifact of a module.

    Attributes:
      index: of the module.
      folder: of its run.
      config: of the run or the artifact; None where it has not begun.
      state: ``running`` while a process trains it, here or, as far as its lock file says, on another host.
      step: of its newest checkpoint.
      logged: whether it is a run, whose time and curves are known.
      lines: of its metrics.
    """

    index: int
    folder: Path
    config: Any
    state: State
    step: int
    lines: tuple[dict[str, Any], ...]
    logged: bool = True

    def last(self, name: str) -> float | None:
        """The newest of the figures of this name, ``loss``, or ``top1`` on whatever split it was measured."""
        found = [
            value
            for line in self.lines
            for key, value in line.items()
            if (key == name or (key.endswith(f"_{name}") and name != "loss")) and isinstance(value, int | float)
        ]
        return float(found[-1]) if found else None

    @property
    def seconds(self) -> float:
        """Time in steps, from the rates that were logged; what came before the first of them counts as the others."""
        return seconds_in_steps(self.lines)


def name(index: int, count: int) -> str:
    """The folder of a module's run; numbers have the same length, so that names sort as the modules are."""
    return f"module-{index:0{len(str(count - 1))}d}"


def seconds_in_steps(lines: Sequence[dict[str, Any]]) -> float:
    """Time that a run's steps took, from its metrics."""
    rates = [line["steps_per_second"] for line in lines if line.get("steps_per_second")]
    if not rates:
        return 0.0
    usual, total, before = statistics.median(rates), 0.0, 0
    for line in lines:
        step = int(line["step"])
        total += max(step - before, 0) / (line.get("steps_per_second") or usual)
        before = max(step, before)
    return total


def runs_in(root: Path) -> dict[int, Path]:
    """The folders of modules in a folder, by the number in their names, in order.

    Raises:
      UserError: there are two for one module.
    """
    found: dict[int, Path] = {}
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match is None or not path.is_dir():
            continue
        if int(match[1]) in found:
            raise UserError(f"{found[int(match[1])]} and {path} are both of module {int(match[1])}; keep one of them.")
        found[int(match[1])] = path
    return dict(sorted(found.items()))


def progress(root: Path, count: int | None = None) -> list[Progress]:
    """How far every module is.

    Args:
      count: of the modules; None is what the runs say that have begun.

    Raises:
      UserError: a folder holds another module than its name says, or runs of different divisions.
    """
    folders = runs_in(root)
    configs: dict[int, ModuleRun] = {}
    for index, folder in folders.items():
        if any((folder / name).is_file() for name in ("config.json", MANIFEST)):
            configs[index] = _config(folder, index)
    depths = {config.module.depths for config in configs.values()}
    if len(depths) > 1:
        raise UserError(f"{root} holds modules of networks that are divided differently: {sorted(depths)}.")
    sources = {config.module.source: folders[index] for index, config in configs.items() if config.module.source}
    if len(sources) > 1:
        first, other = list(sources.values())[:2]
        raise UserError(f"{first} and {other} were trained in different meta models, so they do not fit each other.")
    count = count or next((len(each) for each in depths), None) or (max(folders) + 1 if folders else 0)
    extra = next((i for i in configs if i >= count), None)
    if extra is not None:
        raise UserError(f"{folders[extra]} is of module {extra}, but there are {count}, 0 to {count - 1}.")
    return [_of(index, folders.get(index, root / name(index, count)), configs.get(index)) for index in range(count)]


def _config(folder: Path, index: int) -> ModuleRun:
    run = (folder / "config.json").is_file()
    config = load_config(folder) if run else read_manifest(folder).config
    if not isinstance(config, ClassifierModuleRun | DiffusionModuleRun):
        raise UserError(f"{folder} is of the kind {config.task!r}, but it must be a module.")
    if config.module.place != index:
        raise UserError(f"{folder} holds module {config.module.place}, but its name says {index}.")
    return config


def _of(index: int, folder: Path, config: ModuleRun | None) -> Progress:
    if config is None:
        return Progress(index=index, folder=folder, config=None, state="not begun", step=0, lines=())
    if not (folder / "config.json").is_file():
        step = read_manifest(folder).step
        return Progress(index=index, folder=folder, config=config, state="finished", step=step, lines=(), logged=False)
    found = history.steps(folder / "checkpoints")
    step = found[-1] if found else 0
    lines = read_metrics(folder / FILE_NAME) if (folder / FILE_NAME).is_file() else []
    state: State = "finished" if step >= config.train.steps else "running" if holder(folder) is not None else "stopped"
    return Progress(index=index, folder=folder, config=config, state=state, step=step, lines=tuple(lines))
