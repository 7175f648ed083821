"""Classifiers of animals: a ResNet-20, a ViT and a KIND ViT, each from its preset as a user runs it.

    make study-animals

Question: how many held-out silhouettes are recognised after at most ten minutes on two cores? The recipes were chosen
on the validation split; the test split is looked at once for each run, here. References: the nearest neighbour in
pixels, and ridge regression with the penalty that is best on the validation split. Negative control: the same ResNet-20
on training labels that were dealt out at random.

Every run is kept under --out, and an interrupted study continues.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from common import Records, entry, markdown, report

from kind_jax.classifying import evaluation
from kind_jax.config import change
from kind_jax.config.presets import preset
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.evaluating.intervals import wilson
from kind_jax.model import init
from kind_jax.tasks import task_of
from kind_jax.train.optimizer import learning_rate
from kind_jax.train.short import Short

PRESETS = ("resnet_animals", "vit_animals", "kind_vit_animals")
CONTROL_STEPS = 300
PENALTIES = (1e0, 1e1, 1e2, 1e3, 1e4, 1e5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train each preset with each seed, and measure it on the test split."""

    seeds: tuple[int, ...] = (0, 1, 2)
    presets: tuple[str, ...] = PRESETS
    out: Path = Path("runs/study-animals")
    steps: int | None = None
    """Steps of every run in place of the presets', to see that everything works; the figures then mean nothing."""


def measured(arguments: Arguments, name: str, seed: int) -> dict[str, Any]:
    """Train a preset by its command, and measure what it keeps on the test split."""
    folder = arguments.out / f"{name}-{seed}"
    line = [sys.executable, "-m", "kind_jax", "train", "--config", name, "--workdir", str(folder)]
    line += ["--train.seed", str(seed), "--data.seed", str(seed)]
    line += [] if arguments.steps is None else ["--train.steps", str(arguments.steps), "--optimizer.warmup", "0"]
    begin = time.monotonic()
    subprocess.run(line, check=True)
    seconds = time.monotonic() - begin
    bundle, _ = evaluation.open_weights(folder, "ema")
    found = evaluation.evaluate(bundle, evaluation.open_split(bundle, bundle.config.data, "test"), 256)
    chosen, why = evaluation.open_weights(folder, "best")
    best = evaluation.evaluate(chosen, evaluation.open_split(chosen, chosen.config.data, "test"), 256)
    assert why is not None
    return {
        "command": " ".join(line[1:]), "seconds": round(seconds, 1), "steps": bundle.step, "images": found.count,
        "top1": found.top1, "interval": wilson(found.right, found.count), **found.figures,
        "per_class": dict(zip(bundle.class_names, found.per_class, strict=True)),
        "best": {"step": why.step, "validation_top1": why.top1, "test_top1": best.top1},
    }  # fmt: skip


def control(seed: int, steps: int) -> dict[str, float]:
    """The ResNet-20 on labels that say nothing: what is recognised of held-out images is chance."""
    config = change(preset("resnet_animals"), train={"steps": steps}, optimizer={"warmup": min(50, steps // 4)})
    train, test = open_dataset(config.data, "train"), open_dataset(config.data, "test")
    images = train.source.gather(np.arange(len(train.source)))
    labels = np.random.default_rng(seed).permutation(images["label"]).astype(np.int32)
    dealt = dataclasses.replace(train, source=MemorySource(images=images["image"], labels=labels))
    shape = learning_rate(config.optimizer, steps)
    short = Short(task_of(config), lambda count, scale: scale * shape(count))
    weights = init(config.model, seed)
    for _, state, _ in short.run(weights, dealt, rate=1.0, seed=seed, steps=steps):
        weights = state.collections
    found = _of_weights(config, jax.device_get(weights), test)
    return {"top1": found, "steps": steps}


def _of_weights(config: Any, weights: Any, dataset: Dataset) -> float:
    from kind_jax.classifying.accuracy import measure
    from kind_jax.config import MeshConfig
    from kind_jax.train import sharding

    mesh = sharding.make_mesh(MeshConfig())
    placed = jax.device_put(weights, sharding.replicated(mesh))
    return measure(config.model, placed, dataset, batch=256, mesh=mesh).top1


def _split(name: str) -> tuple[np.ndarray, np.ndarray]:
    source = open_dataset(preset("resnet_animals").data, name).source  # pyright: ignore[reportArgumentType]
    batch = source.gather(np.arange(len(source)))
    return batch["image"].reshape(len(source), -1), batch["label"]


def neighbour() -> dict[str, float]:
    """The label of the training image with the least squared distance."""
    (x, y), (test, labels) = _split("train"), _split("test")
    squares = (x * x).sum(axis=1)[None, :] - 2 * test @ x.T
    return {"top1": float(np.mean(y[squares.argmin(axis=1)] == labels))}


def ridge() -> dict[str, float]:
    """One linear function of the pixels for each class, with a constant."""
    (x, y), (held, held_labels), (test, labels) = _split("train"), _split("validation"), _split("test")
    one = functools.partial(np.pad, pad_width=((0, 0), (0, 1)), constant_values=1.0)
    x, held, test = one(x), one(held), one(test)
    gram, moment = x.T @ x, x.T @ np.eye(10, dtype=np.float32)[y]
    scores = {}
    for penalty in PENALTIES:
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), moment)
        scores[penalty] = float(np.mean((held @ weights).argmax(1) == held_labels)), weights
    penalty = max(scores, key=lambda p: scores[p][0])
    return {"top1": float(np.mean((test @ scores[penalty][1]).argmax(1) == labels)), "penalty": penalty}


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {"steps": arguments.steps}
    records = Records(arguments.out / "results.json", settings)
    rows, commit = [], _commit()
    references = {"nearest neighbour in pixels": neighbour, "ridge regression on pixels": ridge}
    for name, compute in references.items():
        rows.append((name, f"{records.get(name, compute)['top1']:.2%}", "", ""))
    found: dict[str, list[dict[str, Any]]] = {}
    for name in arguments.presets:
        found[name] = [
            records.get(f"{name}, seed {seed}", functools.partial(measured, arguments, name, seed))
            for seed in arguments.seeds
        ]
        top1 = [run["top1"] for run in found[name]]
        rows.append(
            (
                name, f"{statistics.mean(top1):.2%}", ", ".join(f"{value:.2%}" for value in top1),
                ", ".join(f"{run['seconds']:.0f}" for run in found[name]),
            )
        )  # fmt: skip
    steps = CONTROL_STEPS if arguments.steps is None else arguments.steps
    for seed in arguments.seeds[:1]:
        wrong = records.get(f"control, seed {seed}", functools.partial(control, seed, steps))
        rows.append(("ResNet-20, labels dealt at random", f"{wrong['top1']:.2%}", "", ""))
    record = {
        "what": "classifiers of the ten animals (animal-mnist 0.4, duplicates removed): 6,997 training, 778 validation "
        "and 1,941 test images; recipes chosen on the validation split",
        "command": "make study-animals", "commit": commit, "seeds": list(arguments.seeds),
        "machine": f"2 CPU cores (virtual), Python {platform.python_version()}, jax {jax.__version__}, float32",
        "results": records.found,
    }  # fmt: skip
    report(arguments.out, record, markdown([("classifier", "test top-1, mean", "seeds", "seconds"), *rows]))


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    entry(main)
