"""``kind-jax report`` of a classifier: one HTML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kind_jax.commands.console import check_file, say_paths
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a self-contained report.html: loss, held-out accuracy over the run, confusion, calibration, mistakes."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run."""
    out: Path | None = None
    """HTML file to write; default: report.html in the run."""
    split: Literal["test", "validation"] = "test"
    """The split that is measured."""
    weights: Literal["ema", "raw", "best"] | None = None
    """Moving average, last weights, or those with the best held-out accuracy; default: the moving average."""
    batch: int = 256
    """Images at a time, over all devices."""


def run(args: list[str], more: Callable[[Path], list[Any]] = lambda run: []) -> int:
    """Parse ``args``, measure and write the report; returns the exit code.

    Args:
      more: sections about the training of a run, behind its curves.
    """
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax report")
    if not (parsed.source / "config.json").is_file():
        raise UserError(f"{str(parsed.source)!r} is not a run: it has no config.json.")
    if parsed.batch < 1:
        raise UserError(f"--batch is {parsed.batch}, but it must be 1 or more.")
    out = parsed.out or parsed.source / "report.html"
    check_file(out)

    from kind_jax.classifying import evaluation, pictures
    from kind_jax.files import atomic_write_text
    from kind_jax.report import Picture, Table, Text, render_report

    bundle, chosen = evaluation.open_weights(parsed.source, parsed.weights)
    curves = _curves(parsed.source, bundle.config.holdout) + more(parsed.source)
    dataset = evaluation.open_split(bundle, bundle.config.data, parsed.split)
    found = evaluation.evaluate(bundle, dataset, parsed.batch)
    summary = evaluation.summary(found)
    grid, lines = pictures.mistakes(bundle, dataset)
    which = str(chosen) if chosen is not None else f"step {bundle.step}, {bundle.weights} weights"
    what = f"{which}, on the {parsed.split} split"
    if bundle.config.model.gated:
        what += "; the superclass of each image is given, and the classes of others do not compete"
    warning = evaluation.flattering(chosen, parsed.split)
    sections: list[Any] = [
        Text(body=f"{what}. {warning or ''}"),
        *curves,
        Picture(
            png=pictures.confusion_png(found, bundle.class_names), heading="What is taken for what",
            caption="Shares of each true class (rows) that were taken for each class (columns).",
        ),
        Table(
            header=("class", "images", "recognised", "most often taken for"),
            rows=tuple(evaluation.per_class(found, bundle.class_names)), heading="Classes",
        ),
        Picture(
            png=pictures.calibration_png(found), heading="Calibration",
            caption="How often the model is right, by how sure it says it is; on the line it knows what it knows.",
        ),
    ]  # fmt: skip
    if grid is not None:
        caption = "Row by row: " + "; ".join(lines) + "."
        sections.append(Picture(png=grid, caption=caption, heading="Its most confident mistakes", pixelated=True))
    atomic_write_text(out, render_report(f"{parsed.source.name}: step {bundle.step}", summary, sections))
    for name, value in summary:
        print(f"  {name}: {value}")
    if warning:
        print(warning)
    paths = {name: parsed.source / name for name in ("checkpoints", "metrics.jsonl", "best", "best.json")}
    say_paths("everything lies in", {"report": out, **paths})
    return 0


def _curves(run: Path, holdout: str) -> list[Any]:
    from kind_jax.plots import loss_curve, share_curve
    from kind_jax.report import Picture
    from kind_jax.train.metrics import FILE_NAME, read_metrics

    lines = read_metrics(run / FILE_NAME) if (run / FILE_NAME).is_file() else []
    losses = [line for line in lines if isinstance(line.get("loss"), float)]
    if not losses:
        return []
    looked = [line for line in lines if f"{holdout}_top1" in line]
    points = [(int(line["step"]), float(line[f"{holdout}_loss"])) for line in looked]
    caption = "Training loss, with what is mixed and smoothed, and the plain loss on held-out images."
    found = [
        Picture(
            png=loss_curve([int(m["step"]) for m in losses], [float(m["loss"]) for m in losses], points or None),
            caption=caption, heading="Training",
        )
    ]  # fmt: skip
    if looked:
        shares = [(int(line["step"]), float(line[f"{holdout}_top1"])) for line in looked]
        found.append(Picture(png=share_curve(shares), caption=f"Top-1 accuracy on the {holdout} split over the run."))
    return found
