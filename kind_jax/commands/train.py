"""``kind-jax train``, also ``python train.py``."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import option, say_run
from kind_jax.commands.fitted import fitted
from kind_jax.commands.given import base_config
from kind_jax.commands.kinds import PLAIN, for_settings
from kind_jax.config import Config, RunConfig, presets
from kind_jax.config.check import together
from kind_jax.errors import UserError
from kind_jax.kinds import KINDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train a model, or continue the run in --workdir."""

    config: Annotated[Path | None, tyro.conf.arg(help=f"Needed. {presets.HELP}")] = None
    init: Path | None = None
    """A run or an artifact whose model is trained further, all of it: its model is taken over, its weights are step 0.
    A run that has begun needs it no more."""
    workdir: Path | None = None
    """Folder of the run; default: runs/ and the name of the config file."""
    stop_after: int | None = None
    """Stop after this step; the same command without it continues the run."""
    resume: Literal["auto", "never", "always"] = "auto"
    """auto: continue the run in --workdir if there is one. never: refuse to. always: refuse to begin a new one."""
    extend: bool = False
    """Let the run in --workdir become longer, or go on at other rates (--train.steps, --optimizer.learning-rate,
    --optimizer.schedule, ...), with the state of its optimizer. --config is not needed: all other settings are those
    of the run."""
    settings: Annotated[RunConfig, tyro.conf.arg(name="")]


_NO_CONFIG = "--config is missing, but it must name a preset, like digits, or a Python file with get_config()."


def _default_folder(config: str | Path | None) -> Path:
    return Path("runs") / Path(config or "").stem


def _start(task: str, init: str | None) -> ModuleType | None:
    """How runs of a kind begin from another model; imported where one does, as it needs more than settings do."""
    where = KINDS[task].start
    if where is None and init is not None:
        raise UserError(f"--init is given, but a run of the kind {task!r} begins from weights of its own alone.")
    return None if where is None else importlib.import_module(where)


def _to_extend(args: list[str], config: str | None, init: str | None, workdir: str | None) -> RunConfig | None:
    """The settings of the run that ``--extend`` without ``--config`` is about; None elsewhere."""
    if "--extend" not in args or {"-h", "--help"} & set(args):
        return None
    if init is not None:
        raise UserError("--extend is given together with --init, but a run that goes on has weights already.")
    if config is not None:
        return None
    if workdir is None:
        raise UserError("--extend needs --workdir, the run that is to be extended.")
    from kind_jax.train.run import load_config

    return load_config(Path(workdir))


def run(args: list[str]) -> int:
    """Parse ``args``, train, and say where everything lies; returns the exit code."""
    path, init, where = (option(args, name) for name in ("--config", "--init", "--workdir"))
    directory = Path(where or _default_folder(path))
    saved = _to_extend(args, path, init, where)
    base = saved or base_config(Arguments, args, Config(), RunConfig)
    if init == "":
        raise UserError("--init is empty, but it must be a run or an artifact.")
    if path is None and init is not None and not {"-h", "--help"} & set(args):
        raise UserError(_NO_CONFIG)
    start = None
    if init is not None or (directory / "config.json").is_file():
        start = _start(base.task, init)
    given = base
    if start is not None:
        base = start.defaults(base, None if init is None else Path(init), directory)
    with together():
        form = for_settings(Arguments, type(base))
        parsed = tyro.cli(form, args=args, default=form(settings=base), prog="kind-jax train", config=PLAIN)
    if parsed.config is None and saved is None:
        raise UserError(_NO_CONFIG)
    resume = parsed.resume
    if parsed.extend:
        if resume == "never":
            raise UserError("--extend is given, but --resume is 'never'; an extended run goes on.")
        resume = "extend"

    from kind_jax.train import hosts  # after parsing: `--help` should not wait for JAX
    from kind_jax.train.loop import train

    hosts.join()

    config, initial = parsed.settings, None
    if init is None and saved is None and base is given:  # no model of another run has decided it
        config = fitted(config, args)
    start = start or _start(config.task, None)
    if start is not None:
        config, initial = start.begin_run(config, parsed.init, directory)
    summary = train(config, directory, stop_after=parsed.stop_after, resume=resume, initial=initial)
    return say_run(summary, config.train.steps)
