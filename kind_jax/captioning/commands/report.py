"""``kind-jax report`` of a model of images and captions: one HTML file."""

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
    """Write a self-contained report.html: losses and retrieval over the run, figures, captions of held-out images."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run."""
    out: Path | None = None
    """HTML file to write; default: report.html in the run."""
    split: Literal["test", "validation"] = "test"
    """The split that is measured."""
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights; default: the moving average."""
    beams: int = 1
    """Captions that are followed at a time; 1 takes the likeliest word each time."""
    batch: int = 128
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

    from kind_jax.captioning import evaluation
    from kind_jax.captioning.show import COLUMNS, ROWS, picture
    from kind_jax.captioning.texts import spread
    from kind_jax.deploy.bundle import open_bundle
    from kind_jax.files import atomic_write_text
    from kind_jax.report import Picture, Text, render_report

    evaluation.check_beams(parsed.beams)
    bundle = open_bundle(parsed.source, weights=parsed.weights)
    curves = _curves(parsed.source, bundle.config.holdout) + more(parsed.source)
    dataset = evaluation.open_split(bundle, parsed.split)
    found = evaluation.evaluate(bundle, dataset, parsed.batch, beams=parsed.beams)
    summary = evaluation.summary(found)
    rows = spread(len(found.said), COLUMNS * ROWS)
    said, own = [found.said[i] for i in rows], [found.own[i][0] for i in rows]
    sections: list[Any] = [
        Text(body=f"Step {bundle.step}, {bundle.weights} weights, on the {parsed.split} split."),
        *curves,
        Picture(
            png=picture(dataset.source.gather(rows)["image"], said, own), heading="What it says",
            caption="Held-out images, above each its caption in grey, below it what the model says.",
        ),
    ]  # fmt: skip
    atomic_write_text(out, render_report(f"{parsed.source.name}: step {bundle.step}", summary, sections))
    for name, value in summary:
        print(f"  {name}: {value}")
    paths = {name: parsed.source / name for name in ("checkpoints", "metrics.jsonl", "samples")}
    say_paths("everything lies in", {"report": out, **paths})
    return 0


def _curves(run: Path, holdout: str) -> list[Any]:
    from kind_jax.plots import over_steps
    from kind_jax.report import Picture
    from kind_jax.train.metrics import FILE_NAME, read_metrics

    lines = read_metrics(run / FILE_NAME) if (run / FILE_NAME).is_file() else []

    def of(name: str) -> list[tuple[int, float]]:
        return [(int(line["step"]), float(line[name])) for line in lines if isinstance(line.get(name), float)]

    losses = {
        "captions": of("caption"),
        "contrast": of("contrastive"),
        "held-out captions": of(f"{holdout}_caption_loss"),
    }
    if not losses["captions"]:
        return []
    caption = "The two losses of a training batch, and that of captions on held-out images."
    found = [Picture(png=over_steps(losses, "loss"), caption=caption, heading="Training")]
    recalled = {
        "text found, R@1": of(f"{holdout}_text_r1"), "image found, R@1": of(f"{holdout}_image_r1"),
        "tokens foretold": of(f"{holdout}_token_accuracy"),
    }  # fmt: skip
    if recalled["tokens foretold"]:
        png = over_steps(recalled, "per cent", scale=100.0)
        found.append(Picture(png=png, caption=f"On the {holdout} split over the run."))
    return found
