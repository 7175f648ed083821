"""``kind-jax distil``: train a composed generator to predict what the whole one predicts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import option, say_run
from kind_jax.commands.kinds import PLAIN
from kind_jax.config.check import together
from kind_jax.distillation.generator_config import GeneratorRun
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train a model that kind-jax compose wrote for a few steps more, against the predictions of the whole model.

    A classifier is distilled by kind-jax train, with a config that has distil.teacher.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """The whole model, which teaches: a run or an artifact."""
    into: Path | None = None
    """The composed model, which learns, needed: an artifact. Its classes alone are trained."""
    workdir: Path | None = None
    """Folder of the new run, needed; the same command continues it, and kind-jax export writes its model."""
    stop_after: int | None = None
    """Stop after this step; the same command without it continues the run."""
    resume: Literal["auto", "never", "always"] = "auto"
    """auto: continue the run in --workdir if there is one. never: refuse to. always: refuse to begin a new one."""
    settings: Annotated[GeneratorRun, tyro.conf.arg(name="")]


def run(args: list[str]) -> int:
    """Parse ``args``, train, and say where everything lies; returns the exit code."""
    from kind_jax.distillation import generator_start

    asks_help = bool({"-h", "--help"} & set(args))
    if not asks_help and (not args or args[0].startswith("-")):
        raise UserError("the whole model must come first: kind-jax distil RUN --into COMPOSED --workdir DIR ...")
    source, into = Path() if asks_help else Path(args[0]), option(args, "--into")
    if not asks_help and not into:
        raise UserError("--into is missing, but it must name the composed model: an artifact.")
    base = GeneratorRun() if asks_help else generator_start.settings(source, Path(into or ""))
    with together():
        default = Arguments(source=source, settings=base)
        parsed = tyro.cli(Arguments, args=args, default=default, prog="kind-jax distil", config=PLAIN)
    if parsed.workdir is None:
        raise UserError("--workdir is missing, but it must name the folder of the new run.")

    from kind_jax.config import Config
    from kind_jax.deploy.bundle import open_bundle
    from kind_jax.train import hosts
    from kind_jax.train.loop import train

    hosts.join()
    assert parsed.into is not None
    config, weights = generator_start.begin(parsed.settings, open_bundle(parsed.into, kind=Config))
    if hosts.is_first():
        names = ", ".join(map(str, config.distil.classes))
        print(f"{parsed.into} learns from {source}, of the classes {names:.60}")
    summary = train(config, parsed.workdir, stop_after=parsed.stop_after, resume=parsed.resume, initial=[weights].pop)
    return say_run(summary, config.train.steps)
