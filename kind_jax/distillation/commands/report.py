"""``kind-jax report`` of a run that distils: that of its student, and the parts of its loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kind_jax.classifying.commands import report
from kind_jax.classifying.commands.report import Arguments as Arguments

_PARTS = ("cross_entropy", "kd", "align", "crd", "features", "regression")
_UNIFORM = ("uniform_student", "uniform_teacher")


def run(args: list[str]) -> int:
    """Parse ``args``, measure and write the report; returns the exit code."""
    return report.run(args, more=_parts)


def _parts(run: Path) -> list[Any]:
    from kind_jax.distillation.config import DistilRun
    from kind_jax.losses import uniform_on_sphere
    from kind_jax.plots import over_steps
    from kind_jax.report import Picture
    from kind_jax.train.metrics import FILE_NAME, read_metrics
    from kind_jax.train.run import load_config

    settings = load_config(run, DistilRun).distil
    lines = read_metrics(run / FILE_NAME) if (run / FILE_NAME).is_file() else []

    def of(name: str) -> list[tuple[int, float]]:
        return [(int(line["step"]), float(line[name])) for line in lines if isinstance(line.get(name), float)]

    found = [
        Picture(
            png=over_steps({name: of(name) for name in _PARTS}, "part of the loss"), heading="What is learned from it",
            caption=f"The parts of the loss ({settings.method}), before they are weighted.",
        )
    ] if lines else []  # fmt: skip
    curves = {name: of(name) for name in _UNIFORM}
    if curves[_UNIFORM[0]]:
        best = uniform_on_sphere(settings.width, settings.t)
        ends = curves[_UNIFORM[0]][0], curves[_UNIFORM[0]][-1]
        curves["spread evenly over the sphere"] = [(at, best) for at, _ in ends]
        caption = (
            f"Uniformity of the projected features of a batch: 0 where all are alike, {best:.3f} where many are spread "
            f"evenly over the sphere of {settings.width} dimensions. One that stays near 0 means a dead projector."
        )
        found.append(Picture(png=over_steps(curves, "uniformity"), caption=caption))
    return found
