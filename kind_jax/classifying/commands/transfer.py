"""``kind-jax transfer`` of a classifier: its learngenes to other images, with fresh tailors and a fresh head."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.classifying.config import ClassifyRun
from kind_jax.commands.console import say_run
from kind_jax.commands.kinds import PLAIN, source_among
from kind_jax.config.check import together
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Move a KIND classifier to other classes: its learngenes and embeddings stay as they are, tailors and head begin
    anew and are trained. Settings are those of the source unless given."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    workdir: Path | None = None
    """Needed: folder of the new run."""
    weights: Literal["ema", "raw", "best"] | None = None
    """Moving average, last weights, or those with the best held-out accuracy of a run; default: the moving average."""
    stop_after: int | None = None
    """Stop after this step; the same command without it continues the run."""
    settings: Annotated[ClassifyRun, tyro.conf.arg(name="")]


def _source(args: list[str]) -> tuple[Path, ClassifyRun]:
    """The source among the arguments, and its settings, which are the defaults of all others."""
    from kind_jax.transferring.whole import settings_of

    path = source_among(args)
    if path is None:
        raise UserError("the source is missing, but it must be a run or an artifact of a classifier.")
    return Path(path), settings_of(Path(path), ClassifyRun, "the source")


def run(args: list[str]) -> int:
    """Parse ``args``, train, and say where everything lies; returns the exit code."""
    from kind_jax.classifying import start

    path, settings = _source(args)
    base = start.frozen(settings)
    with together():
        parsed = tyro.cli(
            Arguments, args=args, prog="kind-jax transfer", config=PLAIN,
            default=Arguments(source=path, settings=base),
        )  # fmt: skip

    directory = parsed.workdir
    if directory is None:
        raise UserError("--workdir is missing, but it must name the folder of the new run.")

    from kind_jax.deploy.bundle import open_bundle
    from kind_jax.train import hosts
    from kind_jax.train.loop import train

    hosts.join()
    source = open_bundle(parsed.source, weights=parsed.weights, kind=ClassifyRun)
    config, weights = start.transferred(parsed.settings, source)
    summary = train(config, directory, stop_after=parsed.stop_after, initial=lambda: weights)
    return say_run(summary, config.train.steps)
