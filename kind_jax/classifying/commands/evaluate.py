"""``kind-jax evaluate`` of a classifier: accuracy on images that it was not trained on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import tyro

from kind_jax.commands.console import Classes, check_outside, say_paths, table, typed
from kind_jax.commands.console import chosen as named
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure a classifier: top-1 and top-5 accuracy, each class, calibration, and what is taken for what."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    split: Literal["test", "validation", "train"] = "test"
    """Which images of the data set; validation is what data.validation held out of training."""
    weights: Literal["ema", "raw", "best"] | None = None
    """Moving average, last weights, or those with the best held-out accuracy of a run; default: the moving average, or
    what the artifact holds."""
    data: str | None = None
    """Images in place of the run's: a folder with a folder of images a class, or digits, glyphs, textures, animals."""
    data_path: Annotated[Path | None, tyro.conf.arg(name="data.path")] = None
    """Where the run's data set is; default: as the run's config says."""
    out: Path | None = None
    """Folder for evaluation.json and the pictures; default: evaluation in the run, or beside the artifact."""
    classes: Classes = ()
    """Of a gated classifier: classes whose tailors to load, by number, range or name; default: all that it serves.
    Images of other superclasses are left out."""
    batch: int = 256
    """Images at a time, over all devices."""


def run(args: list[str]) -> int:
    """Parse ``args``, measure, and write everything; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax evaluate")
    if parsed.batch < 1:
        raise UserError(f"--batch is {parsed.batch}, but it must be 1 or more.")

    from kind_jax.classifying import evaluation, pictures
    from kind_jax.deploy.bundle import with_data
    from kind_jax.deploy.hub import result_of
    from kind_jax.evaluating.progress import counting
    from kind_jax.files import atomic_write_bytes, atomic_write_text

    classes = typed("--classes", parsed.classes)
    bundle, why = evaluation.open_weights(parsed.source, parsed.weights, classes)
    named(classes, bundle.class_names)
    bundle = with_data(bundle, parsed.data_path)
    out = parsed.out or result_of(parsed.source, "evaluation")
    check_outside(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out is {str(out)!r}, which is a file, but it must be a folder.")
    data, split = _data(parsed, bundle.config)
    chosen = why if parsed.data is None else None  # on other images the choice flatters nothing
    dataset = evaluation.open_split(bundle, data, split)
    with counting("classifying", len(dataset.source)) as progress:
        found = evaluation.evaluate(bundle, dataset, parsed.batch, progress=progress)
    fields = evaluation.record(bundle, dataset, found, split=parsed.data or parsed.split, chosen=why)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_text(out / "evaluation.json", f"{json.dumps(fields, indent=2)}\n")
    atomic_write_bytes(out / "confusion.png", pictures.confusion_png(found, bundle.class_names))
    atomic_write_bytes(out / "calibration.png", pictures.calibration_png(found))
    grid, lines = pictures.mistakes(bundle, dataset)
    if grid is not None:
        atomic_write_bytes(out / "mistakes.png", grid)

    given = ", told the superclass of each image" if bundle.config.model.gated else ""
    which = str(why) if why is not None else f"step {bundle.step}, {bundle.weights} weights"
    table(
        f"{parsed.source} ({which}{given}) on {parsed.data or parsed.split}", ("figure", "value"),
        evaluation.summary(found),
    )  # fmt: skip
    rows = evaluation.per_class(found, bundle.class_names)
    more = f", the worst {len(rows)} of {len(bundle.class_names)}" if len(rows) < len(bundle.class_names) else ""
    table(f"classes{more}", ("class", "images", "recognised", "most often taken for"), list(rows))
    if lines:
        print(f"most confident mistakes: {'; '.join(lines[:5])}")
    if warning := evaluation.flattering(chosen, parsed.split):
        print(warning)
    names = ("evaluation.json", "confusion.png", "calibration.png", "mistakes.png")
    say_paths("written", {name.partition(".")[0]: out / name for name in names if (out / name).exists()})
    return 0


def _data(parsed: Arguments, config: Any) -> tuple[Any, Any]:
    """Where the images are, and which split of it they are."""
    from kind_jax.config import DataConfig
    from kind_jax.config.training import PackagedSource
    from kind_jax.data.folder import has_test_split

    if parsed.data is None:
        alone = config.data.source == "folder" and parsed.split == "test" and not config.data.held_out
        if alone and not has_test_split(config.data.path):
            raise UserError(
                f"--split is 'test', but {config.data.path!r} has no test split: --split validation measures what "
                "data.validation held out, and --data takes a folder of other images."
            )
        return config.data, parsed.split
    if parsed.split != "test":
        raise UserError(f"--split is {parsed.split!r}, but with --data it must be 'test'.")
    if parsed.data_path is not None:
        raise UserError(f"--data.path is {str(parsed.data_path)!r}, but with --data it must not be given.")
    if parsed.data in get_args(PackagedSource):
        return DataConfig(source=cast(PackagedSource, parsed.data), size=config.model.size), "test"
    settings = config.model
    given = DataConfig(source="folder", path=parsed.data, size=settings.size, channels=settings.channels)
    return given, "test" if has_test_split(parsed.data) else "train"  # a plain folder of classes is all there is
