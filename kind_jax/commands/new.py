"""``kind-jax new``: look at a folder of images and propose the settings of a run on them."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from kind_jax.commands.console import Classes, check_outside, say_paths
from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.config import Config
    from kind_jax.data.look import Look
    from kind_jax.data.sets import Dataset
    from kind_jax.train import pace

FILE, PICTURE = "config.py", "images.png"
_ROWS, _COLUMNS = 10, 8
_LEAST, _MOST = 1000, 40_000  # steps: with fewer a model of this kind has learnt little, with more it gains little
_SMALL, _ENOUGH = 32, 4000  # pixels on a side that take the fewest steps to be learnt, and how many larger ones want
_SHARE = 0.85  # of the time is for steps, the rest for checkpoints and samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Look at a folder of images, say what is there, and write a config for a model of them that comes apart.

    The folder has one folder for each class, or train/ and test/ with these in them."""

    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Folder of images: images/CLASS/... or images/train/CLASS/... beside test or val."""
    out: Path
    """Folder for config.py, where runs may go as well. It may exist, but not have a config.py."""
    minutes: float = 10.0
    """How long a training may take on this machine; a few steps are timed to find out how many fit."""
    size: int | None = None
    """Pixels on a side to train on; default: that of the images, at most 64; 32 where more cannot be learnt in
    --minutes."""
    classes: Classes = ()
    """Classes to train on, by their names or numbers; default: all."""


def run(args: list[str]) -> int:
    """Parse ``args``, look, and write the config; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax new")
    file = parsed.out / FILE
    _check(parsed, file)

    from kind_jax.config.capacity import check_capacity
    from kind_jax.config.check import change
    from kind_jax.config.presets import preset
    from kind_jax.config.written import as_python
    from kind_jax.data.dataset import open_dataset
    from kind_jax.data.look import look
    from kind_jax.data.summary import summary
    from kind_jax.files import atomic_write_text
    from kind_jax.images import save_png
    from kind_jax.tasks import task_of
    from kind_jax.train import pace

    given = {"data.path": str(parsed.images.absolute())}
    chosen = {"data.size": parsed.size, "data.classes": parsed.classes or None}
    given |= {name: value for name, value in chosen.items() if value is not None}
    print(f"looking at {parsed.images} ...", flush=True)

    def proposed(given: dict[str, Any]) -> tuple[Config, Dataset, pace.Pace]:
        config = preset("images", given)
        dataset = open_dataset(config.data, "train")
        for line in (*_seen(look(config.data), config), *summary(dataset), *check_capacity(config, strict=True)):
            print(line)
        print("timing a few steps ...", flush=True)
        task, _ = task_of(config).bound(dataset, begins=True)
        return config, dataset, pace.measure(task, dataset)

    seconds = 60 * parsed.minutes * _SHARE
    config, dataset, found = proposed(given)
    if parsed.size is None and config.data.size > _SMALL and (fitting := found.steps(seconds)) < _ENOUGH:
        print(
            f"{fitting:,} steps fit {parsed.minutes:g} minutes at {config.data.size} x {config.data.size}, fewer than "
            f"the {_ENOUGH:,} that pictures need, so smaller ones are proposed (--size {config.data.size} keeps them)"
        )
        config, dataset, found = proposed({**given, "data.size": _SMALL})
    fitting = found.steps(seconds)
    steps = min(max(fitting // 100 * 100, _LEAST), _MOST)
    config = change(config, train={"steps": steps})
    print(
        f"a step takes {1000 * found.step:,.0f} ms here, and the first {found.first:.0f} s more, so {fitting:,} fit "
        f"{parsed.minutes:g} minutes: {steps:,} steps"
    )
    if fitting < _LEAST:
        needed = (found.first + _LEAST * found.step) / _SHARE / 60
        print(
            f"warning: a model of these images needs {_LEAST} steps or more, about {needed:.0f} minutes here; smaller "
            "images (--size) take less"
        )
    headline = f"A model of the {len(dataset.class_names)} classes in {parsed.images.name!r} that comes apart."
    text = as_python(config, headline, _remarks(config, parsed.minutes, steps == fitting // 100 * 100))
    sheet = _sheet(dataset)
    parsed.out.mkdir(parents=True, exist_ok=True)
    save_png(parsed.out / PICTURE, sheet)
    atomic_write_text(file, text)
    say_paths("proposed", {"config": file, "images": parsed.out / PICTURE})
    where = shlex.quote(str(parsed.out / "run"))
    print(
        "next:\n"
        f"  kind-jax train --config {shlex.quote(str(file))} --workdir {where}\n"
        f"  kind-jax sample {where}\n"
        f"  kind-jax report {where}"
    )
    return 0


def _check(parsed: Arguments, file: Path) -> None:
    if not parsed.images.is_dir():
        raise UserError(f"IMAGES is {str(parsed.images)!r}, but it must be a folder of images.")
    check_outside(parsed.out)
    if not 0 < parsed.minutes <= 100_000:
        raise UserError(f"--minutes is {parsed.minutes}, but it must be above 0 and at most 100000.")
    if file.exists():
        raise UserError(f"--out is {str(parsed.out)!r}, which has a {FILE} already; choose another folder.")
    if parsed.out.exists() and not parsed.out.is_dir():
        raise UserError(f"--out is {str(parsed.out)!r}, which is no folder.")
    inside, images = parsed.out.resolve(), parsed.images.resolve()
    if inside == images or images in inside.parents:
        raise UserError(f"--out is {str(parsed.out)!r}, inside the images; choose a folder beside them.")


def _seen(found: Look, config: Any) -> list[str]:
    """What the images are like, and what is made of them."""
    least, median, most = found.sides
    sides = f"{median} pixels" if least == most else f"{least} to {most} pixels, {median} at the median"
    shape = "squares" if found.square else "not all squares, so they are cropped"
    colour = "grey" if found.channels == 1 else "in colour"
    lines = [
        f"images: shorter sides of {sides}, {colour}, {shape} ({found.looked_at:,} looked at); trained on at "
        f"{config.model.size} x {config.model.size}"
    ]
    if config.data.held_out:
        lines.append(
            f"held out: {config.data.held_out:.0%} of each class for evaluation, as there is no test split: those "
            "whose paths have the least SHA-256"
        )
    if len(found.classes) == 1:
        lines.append("warning: there is one class alone, so that nothing but its images can be asked for")
    return lines


def _sheet(dataset: Dataset) -> np.ndarray:
    """The first images as a model will see them, a row for each class."""
    from kind_jax.data.parts import labels_of
    from kind_jax.images import grid

    labels, side = np.asarray(labels_of(dataset.source)), dataset.image_shape[0]
    rows = []
    for label in range(min(len(dataset.class_names), _ROWS)):
        own = np.flatnonzero(labels == label)[:_COLUMNS]
        images = dataset.source.gather(own)["image"]
        rows.append(np.pad(images, ((0, _COLUMNS - len(own)), (0, 0), (0, 0), (0, 0))))
    return grid(np.concatenate(rows), _COLUMNS, scale=max(1, 64 // side))


def _remarks(config: Any, minutes: float, timed: bool) -> dict[str, str]:
    """What a reader of the file may want to know, by the dotted names of settings."""
    model = config.model
    patches = (model.size // model.patch) ** 2
    remarks = {
        "model.size": "pixels on a side; images are scaled, and cropped to squares",
        "model.channels": "colour" if model.channels == 3 else "all images are grey",
        "model.patch": f"pixels on a side of a patch, so {patches} of them; time grows with their number",
        "model.width": f"a patch has {model.patch**2 * model.channels} numbers; time grows with the width's square",
        "model.factor.learngenes": "components that all classes share, in each of the weights",
        "model.factor.tailors": "components of each class alone: what comes apart",
        "train.steps": f"about {minutes:g} minutes on the machine that proposed this"
        if timed
        else "not by the time that was asked for: fewer teach little, more gain little",
        "sampler.guidance": "how much samples are driven towards their class; 1 is off",
    }
    if config.data.held_out:
        remarks["data.held_out"] = (
            "there is no test split, so this share of each class is for evaluation alone: the paths of least SHA-256"
        )
    return remarks
