"""``kind-jax report``: one HTML file that shows what a run learned and what it is made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from kind_jax.commands.console import check_file, say_paths
from kind_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from kind_jax.deploy.bundle import Bundle
    from kind_jax.report import Section

ROWS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a self-contained report.html: loss, samples, ablations of tailors, sizes, energies."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run."""
    out: Path | None = None
    """HTML file to write; default: report.html in the run."""
    seed: int = 0
    """Seed of the noise; all grids start from the same noise."""
    count: int = 500
    """Samples behind each figure; up to the number of held-out images, distances compare fairly."""


def run(args: list[str]) -> int:
    """Parse ``args``, measure and write the report; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax report")
    if not (parsed.source / "config.json").is_file():
        raise UserError(f"{str(parsed.source)!r} is not a run: it has no config.json.")
    if parsed.count < 100:
        raise UserError(f"--count is {parsed.count}, but distances need 100 samples or more.")
    if not 0 <= parsed.seed < 2**32:
        raise UserError(f"--seed is {parsed.seed}, but it must be between 0 and {2**32 - 1}.")
    check_file(parsed.out)

    from kind_jax.deploy.bundle import open_bundle
    from kind_jax.files import atomic_write_text
    from kind_jax.report import render_report

    bundle = open_bundle(parsed.source)
    loss = _loss(parsed.source)  # may refuse the metrics, so before the work
    # The judge looks at the pixels of the training images, which a data set of latents does not have.
    latent = bundle.config.data.source == "latents"
    summary, quality = ([], None) if latent else _quality(bundle, parsed)
    sections = [loss, *_grids(bundle, parsed.seed), quality, *_anatomy(bundle)]
    out = parsed.out or parsed.source / "report.html"
    title = f"{parsed.source.name}: step {bundle.step}"
    atomic_write_text(out, render_report(title, summary, [s for s in sections if s is not None]))
    for name, value in summary:
        print(f"  {name}: {value}")
    names = ("checkpoints", "metrics.jsonl", "samples", "samples.png", "energy.png", "artifact")
    say_paths("everything lies in", {"report": out, **{name: parsed.source / name for name in names}})
    return 0


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

    from kind_jax.data.dataset import open_dataset
    from kind_jax.evaluate import diversion
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

    data = open_dataset(config.data, "train").source
    everything = data.gather(np.arange(min(len(data), 4096)))
    of_class = [everything["image"][everything["label"] == c][:ROWS] for c in classes]
    real = np.stack([images[i % len(images)] for i in range(ROWS) for images in of_class])
    names = ", ".join(bundle.class_names[c] for c in classes)
    grids: list[Section] = [
        Pictures(
            heading="Real and generated",
            pictures=(
                picture(real, f"Real images; columns: {names}."),
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


def _quality(bundle: Bundle, parsed: Arguments) -> tuple[list[tuple[str, str]], Section]:
    """Figures under an offline judge: a classifier trained on the same data set."""
    import numpy as np

    from kind_jax.data.dataset import open_dataset
    from kind_jax.evaluate.diversion import conditions, diversion
    from kind_jax.evaluate.judge import train_judge
    from kind_jax.evaluate.quality import train_vs_test
    from kind_jax.report import Table

    config = bundle.config

    def load(split: str) -> tuple[np.ndarray, np.ndarray]:
        dataset = open_dataset(config.data, split)  # pyright: ignore[reportArgumentType]
        records = dataset.source.gather(np.arange(len(dataset.source)))
        return records["image"], records["label"]

    (images, labels), (test_images, test_labels) = load("train"), load("test")
    # The distance grows as samples get fewer, so real images are compared in the same number.
    some = np.random.default_rng(0).permutation(len(test_images))[: parsed.count]
    test_images, test_labels = test_images[some], test_labels[some]
    print("training the judge, a classifier of real images ...", flush=True)
    judge = train_judge(images, labels, config.model.num_classes, seed=0, cache=parsed.source / "judge.safetensors")
    real = train_vs_test(judge, images, test_images, test_labels)
    found = diversion(config, bundle.collections, judge, images, count=parsed.count, seed=parsed.seed)
    rows = [("real held-out images", f"{real['class_accuracy']:.1%}", f"{real['frechet']:.3f}", "1.00")]
    for condition, figures in found.items():
        ratio = figures["frechet"] / real["frechet"]
        rows.append(
            (
                conditions(config)[condition],
                f"{figures['class_accuracy']:.1%}",
                f"{figures['frechet']:.3f}",
                f"{ratio:.2f}",
            )
        )
    complete = found["complete"]
    summary = [
        (
            "class accuracy of samples",
            f"{complete['class_accuracy']:.1%} (real held-out images: {real['class_accuracy']:.1%})",
        ),
        (
            "Fréchet distance",
            f"{complete['frechet']:.3f}, {complete['frechet'] / real['frechet']:.2f} times train vs test",
        ),
    ]
    if config.model.factor.projections and "wrong_tailors" in found:
        follows = found["wrong_tailors"]["follows_tailors"]
        summary.append(("samples that follow wrong tailors", f"{follows:.1%}"))
    return summary, Table(
        heading="Where the class knowledge sits",
        header=("samples", "class accuracy", "Fréchet distance to training images", "times train vs test"),
        rows=tuple(rows),
        caption=(
            f"{parsed.count} unguided samples each, seen by a classifier trained on the same training images. The "
            "distance is between its 32 features; it is not FID."
        ),
    )


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
