"""``kind-jax evaluate`` of a model of images and captions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import check_outside, say_paths, table
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure a model of images and captions: the next word, retrieval, zero-shot classification, BLEU-4 and CIDEr."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    split: Literal["test", "validation", "train"] = "test"
    """Which images of the data set; validation is what data.validation held out of training."""
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights of a run; default: the moving average, or what the artifact holds."""
    data_path: Annotated[Path | None, tyro.conf.arg(name="data.path")] = None
    """Where the data set is; default: as the run's config says."""
    out: Path | None = None
    """Folder for evaluation.json, captions.jsonl and captions.png; default: evaluation in the run, or beside the
    artifact."""
    beams: int = 1
    """Captions that are followed at a time; 1 takes the likeliest word each time."""
    prompt: str | None = None
    """Zero-shot classification: a text with {} for the class; default: text.prompt of the run."""
    batch: int = 128
    """Images at a time, over all devices."""


def run(args: list[str]) -> int:
    """Parse ``args``, measure, and write everything; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax evaluate")
    if parsed.batch < 1:
        raise UserError(f"--batch is {parsed.batch}, but it must be 1 or more.")
    if parsed.prompt is not None and parsed.prompt.count("{}") != 1:
        raise UserError(f"--prompt is {parsed.prompt!r:.200}, but it must have one {{}} for the class.")

    from kind_jax.captioning import evaluation
    from kind_jax.captioning.show import COLUMNS, ROWS, picture
    from kind_jax.captioning.texts import spread
    from kind_jax.deploy.bundle import open_bundle, with_data
    from kind_jax.deploy.hub import result_of
    from kind_jax.evaluating.progress import counting
    from kind_jax.files import atomic_write_bytes, atomic_write_text

    evaluation.check_beams(parsed.beams)
    bundle = with_data(open_bundle(parsed.source, weights=parsed.weights), parsed.data_path)
    out = parsed.out or result_of(parsed.source, "evaluation")
    check_outside(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out is {str(out)!r}, which is a file, but it must be a folder.")
    dataset = evaluation.open_split(bundle, parsed.split)
    with counting("embedding", len(dataset.source)) as progress:
        found = evaluation.evaluate(
            bundle, dataset, parsed.batch, beams=parsed.beams, prompt=parsed.prompt, progress=progress
        )
    fields = evaluation.record(bundle, dataset, found, split=parsed.split, beams=parsed.beams)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_text(out / "evaluation.json", f"{json.dumps(fields, indent=2)}\n")
    lines = [{"said": said, "captions": own} for said, own in zip(found.said, found.own, strict=True)]
    atomic_write_text(out / "captions.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))
    rows = spread(len(lines), COLUMNS * ROWS)
    shown = picture(
        dataset.source.gather(rows)["image"], [found.said[i] for i in rows], [found.own[i][0] for i in rows]
    )
    atomic_write_bytes(out / "captions.png", shown)
    which = f"step {bundle.step}, {bundle.weights} weights"
    table(f"{parsed.source} ({which}) on {parsed.split}", ("figure", "value"), evaluation.summary(found))
    names = ("evaluation.json", "captions.jsonl", "captions.png")
    say_paths("written", {name: out / name for name in names})
    return 0
