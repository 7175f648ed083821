"""``kind-jax report``: one HTML file that shows what a run learned and what it is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from kind_jax.commands.console import check_file, say_paths
from kind_jax.config import Config
from kind_jax.errors import NoSplitError, UserError

if TYPE_CHECKING:
    import numpy as np

    from kind_jax.data.sets import Source
    from kind_jax.deploy.bundle import Bundle
    from kind_jax.evaluating.quality import Measured
    from kind_jax.report import Section

ROWS = 6
_MOST = 1_000_000  # samples, which are held in memory
_FEW = 1000  # images, of which the judge could be left with too few to measure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a self-contained report.html: loss, samples, ablations of tailors, sizes, energies. A classifier and a
    folder of modules have other things to see: `kind-jax report RUN --help` has their options."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run, or a folder of modules."""
    out: Path | None = None
    """HTML file to write; default: report.html in the run."""
    seed: int = 0
    """Seed of the noise; all grids start from the same noise."""
    count: int = 500
    """Samples behind each figure; up to the number of held-out images, distances compare fairly."""
    judge_steps: int | None = None
    """Training steps of the judge; default: by the number of images."""
    judge_bound: float | None = None
    """Share of held-out real images that the judge must be right on, or it is refused; default: 0.8."""


def run(args: list[str], more: Callable[[Path], list[Any]] = lambda run: []) -> int:
    """Parse ``args``, measure and write the report; returns the exit code.

    Args:
      more: sections about the training of a run, behind its curve.
    """
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax report")
    if not (parsed.source / "config.json").is_file():
        raise UserError(f"{str(parsed.source)!r} is not a run: it has no config.json.")
    if not 100 <= parsed.count <= _MOST:
        raise UserError(f"--count is {parsed.count}, but it must be between 100 and {_MOST}.")
    if not 0 <= parsed.seed < 2**32:
        raise UserError(f"--seed is {parsed.seed}, but it must be between 0 and {2**32 - 1}.")
    if parsed.judge_steps is not None and parsed.judge_steps < 1:
        raise UserError(f"--judge-steps is {parsed.judge_steps}, but it must be 1 or more.")
    if parsed.judge_bound is not None and not 0 <= parsed.judge_bound <= 1:
        raise UserError(f"--judge-bound is {parsed.judge_bound}, but it must be between 0 and 1.")

    from kind_jax.deploy.bundle import open_bundle
    from kind_jax.files import atomic_write_text
    from kind_jax.report import render_report

    out = parsed.out or parsed.source / "report.html"
    check_file(out)
    bundle = open_bundle(parsed.source, kind=Config)
    loss = _loss(parsed.source)  # may refuse the metrics, so before the work
    # The judge looks at the pixels of the training images, which a data set of latents does not have.
    latent = bundle.config.data.source == "latents"
    if not latent:
        _check_data(bundle)
    summary, quality = ([], None) if latent else _quality(bundle, parsed)
    sections = [loss, *more(parsed.source), *_grids(bundle, parsed.seed), quality, *_anatomy(bundle)]
    title = f"{parsed.source.name}: step {bundle.step}"
    atomic_write_text(out, render_report(title, summary, [s for s in sections if s is not None]))
    for name, value in summary:
        print(f"  {name}: {value}")
    names = ("checkpoints", "metrics.jsonl", "samples", "samples.png", "energy.png", "artifact")
    say_paths("everything lies in", {"report": out, **{name: parsed.source / name for name in names}})
    return 0


def _check_data(bundle: Bundle) -> None:
    """Refuse a data set that lacks a class of the model, or has too few images to be measured, before any work."""
    import numpy as np

    from kind_jax.evaluating.judge import hold_out
    from kind_jax.evaluating.metrics import check_count
    from kind_jax.evaluating.reference import open_real
    from kind_jax.nn import cnn

    shape = (bundle.config.model.size, bundle.config.model.size, bundle.config.model.channels)
    classes = tuple(range(len(bundle.class_names)))
    instead = "give the data set its pictures back, or compose or shrink the model for the classes that are left"
    real = open_real(bundle.config.data, "train", bundle.class_names, classes, shape, instead=instead)
    count = len(real.dataset.source)
    try:
        open_real(bundle.config.data, "test", bundle.class_names, None, shape)
    except NoSplitError:  # the judge holds some of the training images out
        if count < _FEW:
            count = int(np.sum(~hold_out(real.arrays(_FEW, 1 << 31)[1])))
    check_count(count, cnn.FEATURES, "the number of training images that the judge learns from")


def _loss(directory: Path) -> Section | None:
    from kind_jax.plots import loss_curve
    from kind_jax.report import Picture
    from kind_jax.train.metrics import FILE_NAME, read_metrics

    if not (directory / FILE_NAME).is_file():
        return None
    lines = [m for m in read_metrics(directory / FILE_NAME) if isinstance(m.get("loss"), float)]
    if not lines:
        return None
    png = loss_curve([int(m["step"]) for m in lines], [float(m["loss"]) for m in lines])
    return Picture(png=png, caption="Training loss.", heading="Training")


def _grids(bundle: Bundle, seed: int) -> list[Section]:
    """Real and generated images, and the same noise with tailors off and with a wrong class's tailors on."""
    import numpy as np

    from kind_jax.data.dataset import open_dataset, real
    from kind_jax.evaluating import diversion
    from kind_jax.images import grid, png_bytes
    from kind_jax.report import Picture, Pictures
    from kind_jax.vae import decode_in_batches
    from kind_jax.vae.pictures import choose

    config, collections = bundle.config, bundle.collections
    vae = choose(None, config)
    classes = np.arange(min(config.model.num_classes, 10), dtype=np.int32)
    labels = np.tile(classes, ROWS)

    def picture(images: np.ndarray, caption: str) -> Picture:
        if vae is not None:
            images = decode_in_batches(vae, images)
        visible = images if images.shape[-1] in (1, 3) else images[..., :3]
        scale = max(1, 32 // visible.shape[1])
        return Picture(png=png_bytes(grid(visible, len(classes), scale=scale)), caption=caption, pixelated=scale > 1)

    def drawn(condition: str) -> np.ndarray:
        return diversion.draw(config, collections, condition, labels, seed=seed)

    of_class = _some_of_each(open_dataset(real(config.data), "train").source, classes)
    blank = np.full(
        (config.model.size, config.model.size, config.model.channels), -1.0, np.float32
    )  # of a class without an image
    shown = np.stack([images[i % len(images)] if images else blank for i in range(ROWS) for images in of_class])
    names = ", ".join(bundle.class_names[c] for c in classes)
    grids: list[Section] = [
        Pictures(
            heading="Real and generated",
            pictures=(
                picture(shown, f"Real images; columns: {names}."),
                picture(drawn("complete"), f"Generated; columns: {names}. No guidance."),
            ),
        )
    ]
    if config.model.factor.projections and config.model.num_groups > 1:
        grids.append(
            Pictures(
                heading="Taken apart",
                pictures=(
                    picture(
                        drawn("learngenes_only"), "Learngenes only, from the same noise: no class, every tailor off."
                    ),
                    picture(
                        drawn("wrong_tailors"),
                        "A wrong class's tailors, same noise: the image should follow the tailors, not the column.",
                    ),
                ),
            )
        )
    return grids


def _some_of_each(source: Source, classes: np.ndarray) -> list[list[np.ndarray]]:
    """Up to as many images of each class as the grid has rows; folders come class by class, so from anywhere."""
    import numpy as np

    found: list[list[np.ndarray]] = [[] for _ in classes]
    order = np.random.default_rng(0).permutation(len(source))
    for start in range(0, len(order), 1024):
        records = source.gather(order[start : start + 1024])
        for images, label in zip(found, classes, strict=True):
            images.extend(records["image"][records["label"] == label][: ROWS - len(images)])
        if all(len(images) == ROWS for images in found):
            break
    return found


def _quality(bundle: Bundle, parsed: Arguments) -> tuple[list[tuple[str, str]], Section]:
    """Figures under an offline judge: a classifier trained on the same data set."""
    import numpy as np

    from kind_jax.evaluating.diversion import conditions, measured_diversion
    from kind_jax.evaluating.judge import BOUND
    from kind_jax.evaluating.judged import judge_data
    from kind_jax.evaluating.quality import measured
    from kind_jax.evaluating.shards import JUDGE
    from kind_jax.nn import cnn
    from kind_jax.report import Table

    config = bundle.config
    bound = BOUND if parsed.judge_bound is None else parsed.judge_bound
    side, channels = config.model.size, config.model.channels
    data = judge_data(
        config.data, bundle.class_names, (side, side, channels), cache=parsed.source / JUDGE,
        steps=parsed.judge_steps, bound=bound,
    )  # fmt: skip
    judge, images = data.judge, data.images
    print(f"the judge itself is {judge.held_out}", flush=True)
    # The distance grows as samples get fewer, so real images are compared in the same number.
    some = np.random.default_rng(0).permutation(len(data.held_out))[: parsed.count]
    found = measured_diversion(config, bundle.collections, judge, images, count=parsed.count, seed=parsed.seed)
    what = "real held-out images" if data.split else "real images that the judge was not trained on"
    rows, real = [], None
    if len(some) > cnn.FEATURES:
        real = measured(judge, data.held_out[some], data.held_out_labels[some], images)
        rows.append((what, *_cells(real, real)))
    rows += [(conditions(config)[condition], *_cells(figures, real)) for condition, figures in found.items()]
    complete = found["complete"]
    accuracy, distance, ratio = _cells(complete, real)
    summary = [
        ("class accuracy of samples", accuracy),
        ("the judge itself", str(judge.held_out)),
        ("Fréchet distance", f"{distance}, {ratio} times train vs test" if ratio else distance),
    ]
    if config.model.factor.projections and "wrong_tailors" in found:
        follows = found["wrong_tailors"]
        summary.append(("samples that follow wrong tailors", _share(follows, "follows_tailors")))
    lowered = f" --judge-bound was lowered from {BOUND:.0%} to {bound:.0%}." if bound < BOUND else ""
    without = (
        ""
        if data.split
        else " There is no test split: the real images are training images that the judge was not trained on, but the "
        "model was."
    )
    return summary, Table(
        heading="Where the class knowledge sits",
        header=("samples", "class accuracy", "Fréchet distance to training images", "times train vs test"),
        rows=tuple(rows),
        caption=(
            f"{parsed.count} unguided samples each, seen by a classifier of the training images, itself "
            f"{judge.held_out}. In brackets: 95 % intervals over draws of as many images.{lowered}{without} The "
            f"distance is between its {cnn.FEATURES} features; it is not FID."
        ),
    )


def _cells(figures: Measured, real: Measured | None) -> tuple[str, str, str]:
    """Class accuracy, distance, and the distance in multiples of that of real images."""
    distance, (low, high) = figures.values["frechet"], figures.intervals["frechet"]
    ratio = "" if real is None else f"{distance / real.values['frechet']:.2f}"
    return _share(figures, "class_accuracy"), f"{distance:.3f} [{low:.3f}, {high:.3f}]", ratio


def _share(figures: Measured, name: str) -> str:
    low, high = figures.intervals[name]
    return f"{figures.values[name]:.1%} [{low:.1%}, {high:.1%}]"


def _anatomy(bundle: Bundle) -> list[Section]:
    from kind_jax.deploy import anatomy
    from kind_jax.plots import energy_bars
    from kind_jax.report import Picture, Table

    sizes = anatomy.sizes(bundle.collections, len(bundle.groups))
    sections: list[Section] = [
        Table(
            heading="Sizes",
            header=("collection", "parameters", "MB"),
            rows=tuple((s.name, f"{s.parameters:,}", f"{s.bytes / 1e6:.2f}") for s in sizes),
            caption="A device fetches learngenes, params and the tailors of the groups that it serves.",
        )
    ]
    layers = anatomy.layers(bundle.collections)
    if layers:
        caption = (
            "Energy, the sum of (|s| |u| |v|)² over components: learngenes, and one group's tailors (mean over groups)."
        )
        sections.append(Picture(png=energy_bars(anatomy.as_bars(layers)), caption=caption, heading="Energy per layer"))
    return sections
