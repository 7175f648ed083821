"""One evaluation from samples to record."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from kind_jax.config import DataConfig
from kind_jax.errors import UserError
from kind_jax.evaluating import adm, generate
from kind_jax.evaluating.extractor import Extractor
from kind_jax.evaluating.generate import Plan
from kind_jax.evaluating.metrics import compare, look, needed, spread
from kind_jax.evaluating.pixels import dequantise
from kind_jax.evaluating.progress import counting
from kind_jax.evaluating.record import make_record, write_record
from kind_jax.evaluating.reference import RealImages, ReferenceFile, look_at_reference, open_real
from kind_jax.evaluating.shards import Shards
from kind_jax.images import grid, save_png

SAMPLES, GRID = "samples.npz", "samples.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Where real images are.

    Attributes:
      config: of the data set.
      path: what was given in place of that of the model's config; None if nothing was.
    """

    config: DataConfig
    path: str | None = None


def real_images(plan: Plan, data: Data, classes: tuple[int, ...], split: Any) -> RealImages:
    """Images of a plan's classes.

    Raises:
      UserError: the data set cannot be opened, lacks a class, has images of another shape, or holds latents.
    """
    if data.config.source == "latents":
        raise UserError(
            "the data set of the run holds latents, but real images are needed; give --data or --reference."
        )
    return open_real(data.config, split, plan.bundle.class_names, classes, plan.shape, data.path)


def measure(
    plan: Plan,
    shards: Shards,
    extractor: Extractor,
    reference: RealImages | ReferenceFile,
    *,
    source: Path,
    details: dict[str, Any],
    data: Data,
) -> dict[str, Any]:
    """Draw what is missing, measure, and write samples.npz, samples.png and evaluation.json into the shards' folder.

    Args:
      source: what was evaluated, for the record.
      details: what else the extractor's features depend on, for the record.
      data: where the held-out images of the baseline are.

    Returns:
      The record.

    Raises:
      UserError: too few images, features that are not finite, samples that are not finite, or a full disk.
    """
    with counting("measuring the reference", reference.most) as progress:
        real = look_at_reference(reference, extractor, plan.shape[-1], progress=progress)
    with counting("drawing samples", plan.count) as progress:
        generate.generate(plan, shards, progress=progress)
    with counting("measuring the samples", plan.count) as progress:
        drawn = look(extractor, generate.batches(shards), "the samples", progress=progress)
    metrics = compare(extractor.names, drawn, real)
    intervals = spread(extractor.names, drawn, real, metrics)
    try:
        held_out = dataclasses.replace(real_images(plan, data, plan.classes, "test"), limit=plan.count)
        baseline = _baseline(held_out, extractor, real)
    except UserError as e:
        baseline = {"none": str(e)}
    adm.write_samples(
        shards.folder / SAMPLES, (pixels for pixels, _ in generate.batches(shards)), plan.labels, plan.shape[:2]
    )
    _save_grid(plan, shards)
    record = make_record(
        source=source,
        settings=plan.settings,
        extractor=extractor,
        details=details,
        reference=reference.record(real.count),
        metrics=metrics,
        intervals=intervals,
        baseline=baseline,
    )
    write_record(shards.folder, record)
    return record


def _baseline(held_out: RealImages, extractor: Extractor, real: Any) -> dict[str, Any]:
    """What real images that no model was trained on get, in the samples' number or as many as there are."""
    if held_out.most < needed(extractor.dims):
        return {"none": f"{held_out.most} held-out images are fewer than the {needed(extractor.dims)} needed"}
    seen = look(extractor, held_out, "the held-out images")
    metrics = compare(extractor.names, seen, real)
    intervals = spread(extractor.names, seen, real, metrics)
    return {**held_out.record(seen.count), "metrics": metrics, "intervals": intervals}


def _save_grid(plan: Plan, shards: Shards) -> None:
    columns = min(len(plan.classes), 10)
    rows = min(8, max(1, plan.count // len(plan.classes)))
    first = next(generate.batches(shards))[0]
    picks = [r * len(plan.classes) + c for r in range(rows) for c in range(columns)]
    pixels = first[[i for i in picks if i < len(first)]]
    save_png(shards.folder / GRID, grid(dequantise(pixels), columns, scale=-(-48 // plan.shape[0])))
