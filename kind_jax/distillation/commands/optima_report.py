"""``kind-jax report`` of a run that distils module by module: that of its student, and what was chosen."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from kind_jax.commands.kinds import source_among


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a self-contained report.html: that of the student, and the modules of the rounds with their rewards. The
    report of a plain run of its kind has the options."""


def run(args: list[str]) -> int:
    """Measure and write the report; returns the exit code."""
    source = source_among(args)
    assert source is not None, "the kind of a run, which names this module, was read from it"
    return _base(Path(source)).run(args, more=_modules)


def _base(run: Path) -> Any:
    """The report of a plain run of the student."""
    from kind_jax.distillation.optima_config import PLAIN
    from kind_jax.kinds import KINDS
    from kind_jax.train.run import load_config

    plain = PLAIN[type(load_config(run))].task
    return importlib.import_module(KINDS[plain].verbs.get("report", "kind_jax.commands.report"))


def _modules(run: Path) -> list[Any]:
    from kind_jax.distillation.optima import OptimaTask
    from kind_jax.distillation.optima_picture import modules_png, shares
    from kind_jax.report import Picture, Table
    from kind_jax.train.metrics import FILE_NAME, read_metrics
    from kind_jax.train.run import load_config

    config: Any = load_config(run)
    names = OptimaTask(config).names
    lines = read_metrics(run / FILE_NAME) if (run / FILE_NAME).is_file() else []
    picture = modules_png(lines, names)
    if picture is None:
        return []
    settings = config.optima
    caption = (
        f"Which module each round of {settings.round} steps distilled (policy {settings.policy}); by how much the "
        f"probe's {settings.reward_loss} loss went down ({settings.reward}); and what the bandit believed, with one "
        "standard deviation."
    )
    rows = tuple((name, f"{share:.0%}") for name, share in shares(lines, names).items())
    return [
        Picture(png=picture, heading="What was distilled", caption=caption),
        Table(header=("module", "share of the rounds"), rows=rows),
    ]
