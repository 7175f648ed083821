"""From a folder of images to a judged model, with no setting chosen: what ``kind-jax new`` proposes, and its figures.

    make study-own-images

Two sets: OpenMoji's drawings by group, and silhouettes of animals in random colours. Each is walked as a newcomer does:
``kind-jax new``, ``train``, ``evaluate``. A finished command is not repeated. Depth, batch, optimizer and guidance
of the proposals were chosen on the animals (at half of the time), so the emoji alone are untouched.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common import entry, markdown, report
from PIL import Image

from kind_jax.config import DataConfig
from kind_jax.data import emoji
from kind_jax.data.dataset import open_dataset
from kind_jax.files import atomic_write_text

EMOJI = {
    "clocks": "time",
    "clothing": "clothing",
    "faces": "face-smiling face-affection face-tongue face-hand face-neutral-skeptical face-sleepy face-unwell "
    "face-concerned face-negative",
    "flags": "country-flag",
    "hands": "hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands",
    "shapes": "geometric heart",
    "sport": "person-sport person-activity",
}
"""Folders, and the subgroups of Unicode's emoji whose drawings lie in them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Make the folders, propose, train and evaluate."""

    sets: tuple[str, ...] = ("emoji", "animals")
    minutes: float = 10.0
    """As of kind-jax new."""
    out: Path = Path("runs/study-own-images")


def draw_emoji(folder: Path) -> None:
    """OpenMoji's drawings, 72 x 72 in colour, a folder a group."""
    counts: collections.Counter[str] = collections.Counter()
    for glyph in emoji._glyphs():
        for name, groups in EMOJI.items():
            if glyph.subgroup in groups.split():
                _save(emoji._rendered(glyph.drawing, 72), folder / name / f"{counts[name]:04}.png")
                counts[name] += 1


def tint_animals(folder: Path) -> None:
    """Silhouettes enlarged to 48 x 48, each in a dark colour of its own on a light one; with a test split."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        found = open_dataset(DataConfig(source="animals"), split)
        records = found.source.gather(np.arange(len(found.source)))
        for i, (image, label) in enumerate(zip(records["image"], records["label"], strict=True)):
            light = (image + 1) / 2
            dark, bright = rng.uniform(0, 150, 3), rng.uniform(200, 255, 3)
            picture = Image.fromarray((light * dark + (1 - light) * bright).astype(np.uint8))
            target = folder / split / found.class_names[label] / f"{i:05}.png"
            _save(np.asarray(picture.resize((48, 48), Image.Resampling.BICUBIC)), target)


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


SETS = {"emoji": draw_emoji, "animals": tint_animals}


def timed(line: list[str], log: Path) -> dict[str, Any]:
    """A command of ``kind-jax``, what it took and what it said; read from ``log`` where it was done before."""
    if not log.exists():
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "kind_jax", *line], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        record = {"command": f"kind-jax {shlex.join(line)}", "seconds": round(time.perf_counter() - begin, 1)}
        atomic_write_text(log, json.dumps({**record, "said": done.stdout.splitlines()}, indent=1))
    return json.loads(log.read_text())


def walk(name: str, arguments: Arguments) -> dict[str, Any]:
    """One set, from its folder to its figures."""
    place = arguments.out / name
    images = place / "images"
    if not images.exists():
        SETS[name](place / "made")
        os.replace(place / "made", images)
    run = place / "proposed" / "run"
    lines = {
        "new": ["new", str(images), "--out", str(place / "proposed"), "--minutes", f"{arguments.minutes:g}"],
        "train": ["train", "--config", str(place / "proposed" / "config.py"), "--workdir", str(run)],
        "evaluate": ["evaluate", str(run)],
    }
    commands = {verb: timed(line, place / f"{verb}.json") for verb, line in lines.items()}
    measured = json.loads((run / "evaluation" / "evaluation.json").read_text())
    config = json.loads((run / "config.json").read_text())
    return {"set": name, "commands": commands, "config": config, "evaluation": measured}


def main() -> None:
    arguments = tyro.cli(Arguments)
    runs = [walk(name, arguments) for name in arguments.sets]
    rows = [["set", "size", "steps", "training", "class accuracy", "Fréchet distance (held-out images)"]]
    for run in runs:
        metrics, spans = run["evaluation"]["metrics"], run["evaluation"]["intervals"]
        low, high = spans["class_accuracy"]
        steps, size = run["config"]["train"]["steps"], run["config"]["model"]["size"]
        accuracy = f"{metrics['class_accuracy']:.1%} [{low:.1%}, {high:.1%}]"
        distance = f"{metrics['judge_frechet']:.1f} ({run['evaluation']['baseline']['metrics']['judge_frechet']:.2f})"
        minutes = f"{run['commands']['train']['seconds'] / 60:.1f} min"
        rows.append([run["set"], f"{size} x {size}", f"{steps:,}", minutes, accuracy, distance])
    pictures = {
        f"{name}.png": (arguments.out / name / "proposed/run/evaluation/samples.png").read_bytes()
        for name in arguments.sets
    }
    report(arguments.out, {"runs": runs}, markdown(rows), pictures)


if __name__ == "__main__":
    entry(main)
