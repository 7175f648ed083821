"""Tables of the study of distillation, from its record."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from common import markdown

METHODS = ("align_uniform", "kd", "crd", "srrl")
TEACHERS = {"cnn": "CNN", "efficientnet": "EfficientNet"}
IMAGES = ((1, "own"), (2, "own"), (2, "all"), (10, "all"))

Key = tuple[str, str | None]  # method and teacher
Values = dict[int, float]  # by seed

ROUTES: dict[Key, str] = {
    ("scratch", None): "from scratch",
    ("longer", None): "from scratch, steps of the next row",
    ("pre-trained", None): "pre-trained, then fine-tuned",
    **{(method, teacher): f"`{method}`, {name}" for teacher, name in TEACHERS.items() for method in METHODS},
}


class Figures:
    """What the record holds, by set, share of labels and route."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record, self.results = record, record["results"]
        self.seeds: list[int] = record["seeds"]
        self.shares: list[float] = list(record["settings"]["shares"])
        self.sets: list[str] = list(record["settings"]["sets"])
        self.cells = [(name, share) for name in self.sets for share in self.shares]
        runs = [run for run in self.results.values() if isinstance(run, dict) and "method" in run]
        parts = ("set", "share", "seed", "method", "teacher", "generator", "multiple")
        self._runs = {tuple(run[part] for part in parts): run for run in runs if "test" in run}
        steps = collections.defaultdict(list)
        for run in runs:
            steps[self._program(run)].append(run["seconds"] / run["steps"])
        self._step = {program: float(np.median(values)) for program, values in steps.items()}

    def images(self, name: str, part: str) -> int:
        return self.record["settings"]["sets"][name]["images"][part]

    def of(
        self, name: str, share: float, key: Key, take: Callable[[Any], float], drawn: tuple[int, str | None] = (0, None)
    ) -> Values:
        keys = {seed: (name, share, seed, *key, drawn[1], drawn[0]) for seed in self.seeds}
        return {seed: take(self._runs[k]) for seed, k in keys.items() if k in self._runs}

    def top1(self, name: str, share: float, key: Key, drawn: tuple[int, str | None] = (0, None)) -> Values:
        return self.of(name, share, key, lambda run: 100 * run["test"]["top1"], drawn)

    def seconds(
        self, name: str, share: float, key: Key, drawn: tuple[int, str | None] = (0, None), without: str = ""
    ) -> Values:
        """Of the whole route; of the student, the median step of all runs of its program."""

        def total(run: Any) -> float:
            others = sum(value for stage, value in run["other_seconds"].items() if stage != without)
            return others + self._step[self._program(run)] * run["steps"]

        return self.of(name, share, key, total, drawn)

    def step(self, name: str, key: Key) -> float:
        """Milliseconds."""
        return 1000 * self._step[name, _plain(key[0]), key[1]]

    def teacher(self, name: str, share: float, which: str) -> Values:
        names = {seed: f"{name}, {share:g}, seed {seed}: {which}" for seed in self.seeds}
        return {seed: 100 * self.results[k]["test"]["top1"] for seed, k in names.items() if k in self.results}

    @staticmethod
    def _program(run: Any) -> tuple[str, str, str | None]:
        teacher = "cnn" if run["teacher"] in ("untrained", "shuffled") else run["teacher"]
        return run["set"], _plain(run["method"]), teacher


def _plain(method: str) -> str:
    return method if method in METHODS else "student"


def minus(ours: Values, theirs: Values) -> Values:
    return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}


def cell(values: Values, digits: int = 1, signed: bool = False) -> str:
    found = np.asarray(list(values.values()))
    if not found.size:
        return ""
    mean = f"{found.mean():{'+' if signed else ''}.{digits}f}"
    return mean if found.size == 1 else f"{mean} ± {found.std(ddof=1):.{digits}f}"


def tables(record: dict[str, Any]) -> str:
    figures = Figures(record)
    parts = [
        ("Test top-1 in per cent, mean ± standard deviation over seeds; no synthetic images.", _accuracy(figures)),
        ("Gain over the same route without synthetic images, in points, seed by seed.", _synthetic(figures)),
        ("With a fiftieth of the labels and synthetic images, test top-1 in per cent.", _few(figures)),
        ("CPU seconds of a whole route, more (+) or less (-) than pre-training and fine-tuning.", _costs(figures)),
        ("Generators.", _generators(figures)),
        ("Controls, test top-1 in per cent.", _controls(figures)),
        ("Expected calibration error in per cent / cross-entropy, test split.", _calibration(figures)),
    ]
    return "\n".join(f"{title}\n\n{markdown(rows)}" for title, rows in parts)


def _head(figures: Figures, *first: str) -> tuple[str, ...]:
    def name(which: str, share: float) -> str:
        return f"{which}, {100 * share:g} % ({figures.images(which, f'{share:g}'):,})"

    return *first, *(name(*each) for each in figures.cells)


def _accuracy(figures: Figures) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [_head(figures, "route")]
    for which, name in TEACHERS.items():
        rows.append((f"teacher: {name}", *(cell(figures.teacher(*each, which)) for each in figures.cells)))
    rows += [(name, *(cell(figures.top1(*each, key)) for each in figures.cells)) for key, name in ROUTES.items()]
    return rows


def _synthetic(figures: Figures) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [_head(figures, "route", "synthetic images")]
    for key, name in ROUTES.items():
        for multiple, which in IMAGES:
            gains = []
            for each in figures.cells:
                gains.append(minus(figures.top1(*each, key, (multiple, which)), figures.top1(*each, key)))
            if any(gains):
                by = "the same labels" if which == "own" else "all labels"
                rows.append((name, f"{multiple}x, generator of {by}", *(cell(gain, signed=True) for gain in gains)))
    return rows


def _few(figures: Figures) -> list[Sequence[str]]:
    share, drawn = figures.shares[-1], ((0, None), *IMAGES)
    names = ("none", *(f"{n}x" + ("" if which == "own" else ", generator of all labels") for n, which in IMAGES))
    rows: list[Sequence[str]] = [("route", *(f"{each}: {name}" for each in figures.sets for name in names))]
    for method, teacher in (("scratch", None), *((m, t) for t in TEACHERS for m in METHODS[:2])):
        found = [figures.top1(each, share, (method, teacher), which) for each in figures.sets for which in drawn]
        rows.append((ROUTES[method, teacher], *map(cell, found)))
    return rows


def _costs(figures: Figures) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [_head(figures, "route")]
    pre = {each: figures.seconds(*each, ("pre-trained", None)) for each in figures.cells}
    kinds = [(key, name, (0, None)) for key, name in ROUTES.items()]
    kinds += [(key, f"{ROUTES[key]}, 1x synthetic", (1, "own")) for key in (("kd", "cnn"), ("kd", "efficientnet"))]

    def against(seconds: Values, each: tuple[str, float]) -> str:
        if not seconds:
            return ""
        mean, theirs = np.mean(list(seconds.values())), np.mean(list(pre[each].values()))
        return f"{mean:.1f} ({100 * (mean / theirs - 1):+.0f} %)"

    for key, name, drawn in kinds:
        rows.append((name, *(against(figures.seconds(*each, key, drawn), each) for each in figures.cells)))
        if key[0] == "pre-trained":
            alone = [figures.seconds(*each, key, without="pre-training") for each in figures.cells]
            rows.append(("fine-tuning alone", *(against(*pair) for pair in zip(alone, figures.cells, strict=True))))
    return rows


def _generators(figures: Figures) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [_head(figures, "")]
    trained, drawn = [], []
    for name, share in figures.cells:
        trained.append(figures.results.get(f"{name}, {share:g}: generator"))
        found = [figures.results.get(f"{name}, {share:g}: {n}x drawn") for n in (1, 2)]
        drawn.append(next((run for run in found if run is not None), None))
    rows.append(("training, seconds", *("" if run is None else f"{run['seconds']:.0f}" for run in trained)))
    rows.append(("drawing, ms an image", *("" if run is None else f"{1000 * run['an_image']:.1f}" for run in drawn)))
    near = [figures.results.get(f"{name}, {share:g}: nearest training image", {}) for name, share in figures.cells]
    for what, label in (("drawn", "drawn images"), ("test", "test images")):
        row = ("" if what not in found else f"{found[what]:.2f}" for found in near)
        rows.append((f"{label}: root-mean-square distance from the nearest training image", *row))
    label = "class seen by the CNN that all labels trained, %"
    rows.append((label, *("" if run is None else f"{100 * run['agreed']:.1f}" for run in drawn)))
    return rows


def _controls(figures: Figures) -> list[Sequence[str]]:
    keys: dict[str, Key] = {
        "from scratch": ("scratch", None),
        "`kd`, CNN": ("kd", "cnn"),
        "`kd`, CNN that was never trained": ("kd", "untrained"),
        "`kd`, the CNN's outputs for other images": ("kd", "shuffled"),
        "`align_uniform`, CNN": ("align_uniform", "cnn"),
        "`align_uniform`, CNN that was never trained": ("align_uniform", "untrained"),
    }
    rows: list[Sequence[str]] = [_head(figures, "student")]
    rows += [(name, *(cell(figures.top1(*each, key)) for each in figures.cells)) for name, key in keys.items()]
    return rows


def _calibration(figures: Figures) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [_head(figures, "route")]
    for key, name in ROUTES.items():
        found = []
        for each in figures.cells:
            error = figures.of(*each, key, lambda run: 100 * run["test"]["calibration_error"])
            loss = figures.of(*each, key, lambda run: run["test"]["loss"])
            found.append(f"{cell(error)} / {cell(loss, 2)}" if error else "")
        rows.append((name, *found))
    return rows
