"""Distillation in the place of pre-training for a small classifier (Farhat & Chen 2024, arXiv 2404.03263).

    make study-distillation

Claims of the publication: (1) a small student that is distilled on the task from a pre-trained teacher is at least as
good as the same student pre-trained on another, larger set and then fine-tuned, at less total cost; (2) with few
labelled images the effect fades; (3) synthetic images bring it back.

Protocol. Animals (28 x 28, a tenth of the training images for validation) and digits (8 x 8, a fifth), with all of the
other training images, a tenth and a fiftieth of each class. The student is a ResNet of 20,000 parameters with a block
in each stage; on animals it sees 14 x 14 pixels, since of 28 x 28 a step took three times as long. All students of a
set have the same number of steps of 64 images and the same recipe: AdamW with a decay of 1e-2 on kernels, linear
warm-up, cosine, weights averaged with 0.98, no augmentation. Weights of the losses and projectors are the published
ones; CRD draws 128 negatives for each image, not 4,096. Teachers are adapted with the same few labels: the judge's
network (312,000 parameters), trained from scratch, and EfficientNet-Lite0 as ImageNet trained it with a linear probe,
on images scaled to 112 (animals) or 64 pixels. The other route pre-trains the student on all images of the other
packaged sets (28 classes, scaled to the size of the task) and then fine-tunes it.

Synthetic images are drawn by a small KIND that was trained on the same few images, or, in rows of their own, on all.
There is one generator for each set and share: the spread over seeds is that of students and teachers. CRD and SRRL see
synthetic images only once for each real one, and with few labels; with all labels there are as many synthetic as real
ones and no more. All this is for want of time.

Rates of 1e-3, 3e-3, 1e-2 and 3e-2 are tried for every method and teacher with a tenth of the labels and a seed that is
not reported, and chosen by the validation split; the choice holds for every share. (The highest was added when some
methods were best at 1e-2.) The test split is measured once for each model. Controls: a teacher that was
never trained, one whose outputs are dealt out to other images, and training from scratch for as many steps as
pre-training and fine-tuning have together. The first was planned for kd with a tenth of the labels, and extended to
align_uniform and all shares when there it was no worse than a teacher that had been trained.

Cost is CPU seconds of one core without compiling. A route pays for its teacher's adaptation, its generator, the
drawing, the teacher's outputs for all images and the student; the ImageNet training of EfficientNet is not counted, and
the pre-training of the student is, as it was made for this; tables have the figure without it too.

Results are kept under --out, and an interrupted study continues.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro
from common import Records, entry, report
from distillation_picture import curves, picture
from distillation_tables import tables
from distillation_teachers import Teacher, cnn, efficientnet, features, generator, lite0_logits, nearest, pool
from distillation_training import (
    BATCH,
    CLASSES,
    SETS,
    TUNING_SEED,
    Keeper,
    Set,
    accuracy,
    as_dataset,
    images_of,
    others,
    pre_trained,
    run_of,
    split,
    train,
)

from kind_jax import model
from kind_jax.data.sets import Dataset
from kind_jax.distillation import cache, memory
from kind_jax.distillation.config import DistilConfig, Method, distil_run
from kind_jax.distillation.task import DistilTask, beside
from kind_jax.host import keep_memory
from kind_jax.partition import Collections
from kind_jax.tasks import task_of

SHARES = (1.0, 0.1, 0.02)
TUNING_SHARE, RATES = 0.1, (1e-3, 3e-3, 1e-2, 3e-2)
METHODS: tuple[Method, ...] = ("align_uniform", "kd", "crd", "srrl")
TEACHERS = ("cnn", "efficientnet")
NEGATIVES = 128
DRAWN = {1.0: 1, 0.1: 2, 0.02: 2}
"""Synthetic images for each real one, at most, of the generator of each share."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Tune all methods, train all routes with each seed, and measure them on the test split."""

    seeds: tuple[int, ...] = (0, 1, 2)
    sets: tuple[str, ...] = ("digits", "animals")
    out: Path = Path("runs/study-distillation")
    quick: bool = False
    """20 steps of everything, to see that it works; the figures then mean nothing."""


class Route(NamedTuple):
    """How a student is trained.

    Attributes:
      method: ``scratch``, ``longer``, ``pre-trained`` or one of distillation.
      teacher: one of TEACHERS, ``untrained`` or ``shuffled``.
      generator: what synthetic images are drawn by: ``own``, trained on the same images, or ``all``.
      multiple: synthetic images for each real one.
    """

    method: str
    teacher: str | None = None
    generator: str | None = None
    multiple: int = 0

    @property
    def tuned(self) -> str:
        """The route whose rate this one takes."""
        method = "scratch" if self.method == "longer" else self.method
        taught = self.teacher is not None and self.teacher not in TEACHERS
        return str(Route(method, "cnn" if taught else self.teacher))

    def __str__(self) -> str:
        taught = "" if self.teacher is None else f" from {self.teacher}"
        return self.method + taught + (f" with {self.multiple}x {self.generator}" if self.multiple else "")


def with_images(which: str, multiple: int, methods: tuple[Method, ...]) -> tuple[Route, ...]:
    taught = (Route(method, teacher, which, multiple) for teacher in TEACHERS for method in methods)
    return Route("scratch", None, which, multiple), *taught


def phases() -> Iterator[tuple[Route, tuple[float, ...]]]:
    """Routes and the shares of labels that they are tried with, the most important ones first."""
    few = SHARES[1:]
    yield Route("scratch"), SHARES
    yield Route("pre-trained"), SHARES
    for teacher in TEACHERS:
        yield from ((Route(method, teacher), SHARES) for method in METHODS)
    for route in with_images("own", 1, METHODS):
        yield route, few if route.method in ("crd", "srrl") else SHARES
    for which in ("own", "all"):
        yield from ((route, few) for route in with_images(which, 2, METHODS[:2]))
    yield from ((Route("kd", teacher), (TUNING_SHARE,)) for teacher in ("untrained", "shuffled"))
    yield Route("longer"), SHARES
    yield from ((route, few[-1:]) for route in with_images("all", 10, METHODS[:2]))
    yield from ((Route(method, "untrained"), SHARES) for method in METHODS[:2])


class Shown(NamedTuple):
    """What a student learns from."""

    data: Dataset
    fixed: Collections
    teacher: Teacher | None
    costs: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One set, share of labels and seed."""

    chosen: Set
    share: float
    seed: int
    keep: Keeper

    @property
    def real(self) -> Dataset:
        return split(self.chosen.name, "train", self.share)

    def teacher(self, name: str) -> Teacher:
        make = {"cnn": cnn, "shuffled": cnn, "efficientnet": efficientnet}
        if name in make:
            return make[name](self.chosen, self.share, self.seed, self.keep)
        net = self.chosen.cnn
        return Teacher(net, model.init(net, self.seed), 0.0, 0.0)

    def synthetic(self, route: Route) -> tuple[Dataset, np.ndarray, str]:
        """The generator's images, which of them are used, and their name."""
        share = self.share if route.generator == "own" else 1.0
        found = pool(self.chosen, share, DRAWN[share], self.keep)[0]
        labels, wanted = images_of(found)[1], np.asarray(self.real.counts) * route.multiple
        rows = np.concatenate([np.flatnonzero(labels == c)[: wanted[c]] for c in range(CLASSES)])
        assert len(rows) == wanted.sum()
        return found, rows, f"{share:g}, drawn"

    def shown(self, route: Route) -> Shown:
        images, labels = images_of(self.real)
        costs: dict[str, float] = {}
        drawn, rows, name = self.synthetic(route) if route.multiple else (None, np.zeros(0, int), "")
        if drawn is not None:
            more = images_of(drawn)
            share = self.share if route.generator == "own" else 1.0
            costs["generator"] = generator(self.chosen, share, self.keep)[1]["seconds"]
            costs["drawing"] = pool(self.chosen, share, DRAWN[share], self.keep)[1]["an_image"] * len(rows)
            images, labels = np.concatenate([images, more[0][rows]]), np.concatenate([labels, more[1][rows]])
        if route.teacher is None:
            return Shown(as_dataset(self.real, images, labels), {}, None, costs)
        teacher = self.teacher(route.teacher)
        real = teacher.of(self.real) if teacher.given is None else teacher.given
        if route.teacher == "shuffled":
            order = np.random.default_rng(self.seed).permutation(len(real[0]))
            real = real[0][order], real[1][order]
        parts, new = [real], len(rows) + (len(real[0]) if teacher.given is None else 0)
        if drawn is not None and route.teacher == "efficientnet":
            found = features(self.chosen, drawn, name, self.keep)[rows]
            parts.append((found, lite0_logits(teacher, found)))
        elif drawn is not None:
            parts.append(teacher.of(as_dataset(self.real, images[-len(rows) :], labels[-len(rows) :])))
        costs |= {"teacher": teacher.seconds, "outputs of the teacher": teacher.an_image * new}
        columns = {cache.FEATURES: np.concatenate([a for a, _ in parts])}
        columns[cache.LOGITS] = np.concatenate([b for _, b in parts])
        columns["slot"] = memory.slots(labels)
        return Shown(as_dataset(self.real, images, labels, **columns), teacher.weights, teacher, costs)

    def student(self, route: Route, rate: float) -> tuple[Collections, dict[str, Any]]:
        chosen, run, begun = self.chosen, run_of(self.chosen, self.chosen.student), None
        steps = chosen.steps + (chosen.pre_training_steps if route.method == "longer" else 0)
        shown = self.shown(route)
        costs, data = shown.costs, shown.data
        begun = model.init(chosen.student, self.seed)
        if route.method == "pre-trained":
            begun, pre = pre_trained(chosen, self.seed, self.keep)
            costs["pre-training"] = pre["seconds"]
        task, fixed, watched = task_of(run), {}, ()
        if shown.teacher is not None:
            crd = route.method == "crd"
            distil = DistilConfig(
                method=route.method, network=shown.teacher.net, cache="held in memory",  # pyright: ignore[reportArgumentType]
                negatives=NEGATIVES, counts=data.counts if crd else None,
            )  # fmt: skip
            task = DistilTask(distil_run(run, distil))
            seeded = dataclasses.replace(task.config, train=dataclasses.replace(run.train, seed=self.seed))
            begun, fixed = begun | beside(seeded), shown.fixed if route.method == "srrl" else {}
            data = dataclasses.replace(data, columns={k: v for k, v in data.columns.items() if k in task.batch()})
            if route == Route("align_uniform", route.teacher) and self.share == 1 and self.seed == 0:
                watched = ("align", "uniform_student", "uniform_teacher")
        found, figures = train(task, begun, data, steps, rate, self.seed, fixed, watched)
        about = {"set": chosen.name, "share": self.share, "seed": self.seed} | route._asdict()
        counts = {"real": len(self.real.source), "synthetic": len(data.source) - len(self.real.source)}
        return found, about | {"images": counts} | figures | {"other_seconds": costs}

    def measured(self, route: Route, rate: float) -> dict[str, Any]:
        found, figures = self.student(route, rate)
        return figures | {"test": accuracy(self.chosen, self.chosen.student, found, "test")}

    def tried(self, route: Route, rate: float) -> dict[str, Any]:
        found, figures = self.student(route, rate)
        return figures | {"validation": accuracy(self.chosen, self.chosen.student, found, "validation")}


def tune(chosen: Set, keep: Keeper) -> dict[str, float]:
    """The rate of each method and teacher, by accuracy on the validation split and then by its cross-entropy."""
    cell, found = Cell(chosen, TUNING_SHARE, TUNING_SEED, keep), {}
    taught = (Route(method, teacher) for teacher in TEACHERS for method in METHODS)
    for route in (Route("scratch"), Route("pre-trained"), *taught):
        scores = {}
        for rate in RATES:
            name = f"tuning, {chosen.name}: {route}, rate {rate:g}"
            figures = keep.records.get(name, functools.partial(cell.tried, route, rate))["validation"]
            scores[rate] = figures["top1"], -figures["loss"]
        found[str(route)] = max(scores, key=lambda rate: scores[rate])
    return found


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    keep_memory()
    if arguments.quick:
        few = {name: 20 for name in Set._fields if name.endswith("steps")}
        SETS.update({name: chosen._replace(**few) for name, chosen in SETS.items()})
    arguments.out.mkdir(parents=True, exist_ok=True)
    budgets = {name: SETS[name]._asdict() for name in SETS}
    records = Records(arguments.out / "results.json", {"sets": budgets})
    records.get("commit", _commit)  # the one that the study began with
    keep = Keeper(arguments.out, records)
    rates = {name: tune(SETS[name], keep) for name in arguments.sets}
    for route, shares in phases():
        for name in arguments.sets:
            for share in shares:
                for seed in arguments.seeds:
                    cell, rate = Cell(SETS[name], share, seed, keep), rates[name][route.tuned]
                    what = f"{name}, {share:g}, seed {seed}: {route}"
                    records.get(what, functools.partial(cell.measured, route, rate))
    for name in arguments.sets:
        for share in SHARES:
            nearest(SETS[name], share, DRAWN[share], keep)
    record = {
        "what": "a ResNet of 20,000 parameters distilled, pre-trained and fine-tuned, or trained from scratch, on "
        "digits and animals, with all labels, a tenth and a fiftieth, and with synthetic images; test split; rates "
        "chosen on the validation split",
        "command": "make study-distillation", "commit": records.found["commit"], "seeds": list(arguments.seeds),
        "machine": f"one CPU core (virtual), Python {platform.python_version()}, jax {jax.__version__}, float32",
        "settings": {
            "sets": {name: _settings(SETS[name]) for name in arguments.sets}, "shares": SHARES, "batch": BATCH,
            "negatives": NEGATIVES, "tuning_seed": TUNING_SEED, "tuning_share": TUNING_SHARE, "rates": rates,
        },
        "results": records.found,
    }  # fmt: skip
    pictures = {"distillation.png": picture(record), "distillation_curves.png": curves(record)}
    report(arguments.out, record, tables(record), pictures)


def _settings(chosen: Set) -> dict[str, Any]:
    counts = {f"{share:g}": len(split(chosen.name, "train", share).source) for share in SHARES}
    parts = {part: len(split(chosen.name, part).source) for part in ("validation", "test")}
    return chosen._asdict() | {"images": counts | parts | {"pre-training": len(others(chosen.name).source)}}


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    entry(main)
