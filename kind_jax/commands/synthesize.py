"""``kind-jax synthesize``: draw a training set from a run or an artifact."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from kind_jax.commands.console import Classes, check_outside, chosen, say_paths, typed
from kind_jax.commands.sampler import SamplerArguments
from kind_jax.config import Config
from kind_jax.config.check import check_seed, require
from kind_jax.errors import UserError

_LISTED = 12  # classes whose agreement is said one by one


if TYPE_CHECKING:
    from kind_jax.deploy.bundle import Bundle


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(SamplerArguments):
    """Draw images of every class into a folder, for training on them (data.mix).

    The same command continues after an interruption, and does nothing where all is drawn; with more images of each
    class it keeps those that are there.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact; of an artifact only the tailors of --classes are read."""
    per_class: int | None = None
    """Images of each class, needed."""
    out: Path | None = None
    """Folder to write to, needed: train/CLASS/NUMBER.png, samples.png, and the recipe, synthesis.json."""
    classes: Classes = ()
    """Classes by number, range or name, like 3,7 or 0-4 or cat,dog; default: all that the model serves. What reads as a
    number is a number, also where it is another class's name."""
    agree: Path | None = None
    """A classifier, a run or an artifact (runs/NAME/best has a run's best weights): only images in which it sees the
    class that they were drawn for are kept."""
    attempts: int | None = None
    """With --agree, how many images are drawn for each that is wanted, at most; default: 4."""


def run(args: list[str]) -> int:
    """Parse ``args``, draw what is missing, and say what there is; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax synthesize")
    if parsed.out is None:
        raise UserError("--out is missing, but it must name the folder to write to.")
    if parsed.per_class is None:
        raise UserError("--per-class is missing, but it must say how many images of each class are drawn.")
    require(parsed.per_class >= 1, "--per-class", parsed.per_class, "1 or more")
    if parsed.attempts is not None:
        require(parsed.agree is not None, "--attempts", parsed.attempts, "given with --agree alone")
        require(parsed.attempts >= 1, "--attempts", parsed.attempts, "1 or more")
    check_seed(parsed.seed, "--seed")
    check_outside(parsed.out)
    asked = typed("--classes", parsed.classes)

    from kind_jax.data.mix import RECIPE
    from kind_jax.deploy.bundle import open_bundle
    from kind_jax.synthesis.make import synthesize
    from kind_jax.synthesis.store import GRID

    before = _written(parsed.out / RECIPE)
    bundle = open_bundle(parsed.source, classes=asked, weights=parsed.weights, kind=Config)
    recipe = synthesize(
        bundle,
        parsed.out,
        per_class=parsed.per_class,
        classes=chosen(asked, bundle.class_names),
        seed=parsed.seed,
        sampler=parsed.sampler_of(bundle.config),
        vae=parsed.vae_of(bundle.config),
        agree=None if parsed.agree is None else _classifier(parsed.agree),
        attempts=parsed.attempts,
    )
    _say(recipe)
    say_paths(
        "complete already, nothing was drawn" if before == _written(parsed.out / RECIPE) else "written",
        {"images": parsed.out / "train", "recipe": parsed.out / RECIPE, "grid": parsed.out / GRID},
    )
    return 0


def _written(path: Path) -> int | None:
    """When a file was written last, in nanoseconds; None where there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


def _say(recipe: dict[str, Any]) -> None:
    which, sampler, seconds = recipe["weights"], recipe["sampler"], recipe["seconds"]
    classes = recipe["classes"]
    print(
        f"{recipe['images']:,} images, {recipe['per_class']:,} of each of {len(classes)} classes, in {seconds:.0f} s "
        f"({recipe['drawn'] / max(seconds, 1e-3):.1f} images/s): step {which['step']}, {which['which']} weights, "
        f"{sampler['method']} {sampler['steps']} steps, guidance {sampler['guidance']:g}, seed {recipe['seed']}"
    )
    if recipe["agree"] is None:
        return
    lowest = sorted(classes.items(), key=lambda one: one[1]["share"])
    shown = ", ".join(f"{name} {found['share']:.1%}" for name, found in lowest[:_LISTED])
    print(
        f"the classifier {recipe['agree']['classifier']} agrees on {recipe['agree']['share']:.1%} of "
        f"{recipe['drawn']:,} images that were drawn; {'lowest: ' if len(lowest) > _LISTED else ''}{shown}"
    )


def _classifier(path: Path) -> Bundle:
    from kind_jax.classifying.config import ClassifyRun
    from kind_jax.deploy.bundle import open_bundle

    try:
        return open_bundle(path, kind=ClassifyRun)
    except UserError as e:
        raise UserError(f"--agree is {str(path)!r}, which is no classifier that can be asked: {e}") from e
