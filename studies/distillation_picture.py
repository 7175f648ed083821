"""Pictures of the study of distillation: accuracy against the cost of a whole route; alignment and uniformity."""

from __future__ import annotations

import io
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from distillation_tables import METHODS, TEACHERS, Figures, Key, Values
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

SPHERE = -3.9375
"""Uniformity with t = 2 of points spread evenly over the sphere in 128 dimensions."""

_COLOURS = {
    "scratch": "black", "longer": "tab:grey", "pre-trained": "tab:red", "align_uniform": "tab:blue", "kd": "tab:green",
    "crd": "tab:orange", "srrl": "tab:purple",
}  # fmt: skip
_MARKERS: dict[str | None, str] = {None: "s", "cnn": "o", "efficientnet": "^"}
_NAMES = {"scratch": "from scratch", "longer": "from scratch, longer", "pre-trained": "pre-trained, then fine-tuned"}


def picture(record: dict[str, Any]) -> bytes:
    """Accuracy against total cost, a panel for each set and share of labels; as PNG."""
    figures = Figures(record)
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    panels, axes = plt.subplots(len(figures.sets), len(figures.shares), figsize=(12, 7.6), squeeze=False)
    for i, name in enumerate(figures.sets):
        for j, share in enumerate(figures.shares):
            _panel(figures, axes[i, j], name, share)
            axes[i, j].set_title(f"{name}, {100 * share:g} % of the labels")
        axes[i, 0].set_ylabel("test top-1, %")
    for axis in axes[-1]:
        axis.set_xlabel("CPU seconds of the whole route")
    labels = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
    panels.legend(labels.values(), labels.keys(), loc="lower center", ncols=4, fontsize=9, frameon=False)
    panels.tight_layout(rect=(0, 0.12, 1, 1))
    return _png(panels)


def _panel(figures: Figures, axis: Any, name: str, share: float) -> None:
    for method, colour in _COLOURS.items():
        for teacher in TEACHERS if method in METHODS else (None,):
            key: Key = (method, teacher)
            label = _NAMES.get(method) or f"{method}, {TEACHERS[teacher or 'cnn']}"
            style: dict[str, Any] = {"color": colour, "marker": _MARKERS[teacher], "linestyle": ""}
            for drawn in ((0, None), (1, "own")):
                top1, seconds = figures.top1(name, share, key, drawn), figures.seconds(name, share, key, drawn)
                if drawn[0]:
                    _point(axis, seconds, top1, **style, fillstyle="none")
                else:
                    _point(axis, seconds, top1, **style, label=label)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.errorbar(
        [], [], color="grey", marker="o", fillstyle="none", linestyle="", label="hollow: with 1x synthetic images"
    )


def _point(axis: Any, seconds: Values, top1: Values, **style: Any) -> None:
    if top1:
        values = np.asarray(list(top1.values()))
        spread = values.std(ddof=1) if values.size > 1 else 0.0
        axis.errorbar(np.mean(list(seconds.values())), values.mean(), spread, capsize=2, elinewidth=1, **style)


def curves(record: dict[str, Any]) -> bytes:
    """Alignment and uniformity while a student is trained with all labels; as PNG."""
    figures = Figures(record)
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    panels, axes = plt.subplots(1, len(figures.sets), figsize=(11, 5), sharey=True, squeeze=False)
    names = {"align": "alignment", "uniform_student": "uniformity, student", "uniform_teacher": "uniformity, teacher"}
    colours = dict(zip(names, ("tab:blue", "tab:orange", "tab:green"), strict=True))
    for name, axis in zip(figures.sets, axes[0], strict=True):
        for (which, known), style in zip(TEACHERS.items(), ("-", "--"), strict=True):
            run = figures.results.get(f"{name}, 1, seed 0: align_uniform from {which}", {})
            for metric, label in names.items():
                if "curves" in run:
                    found = run["curves"]
                    axis.plot(found["step"], found[metric], style, color=colours[metric], label=f"{label}, {known}")
        axis.axhline(SPHERE, color="grey", linewidth=1)
        axis.text(0, SPHERE - 0.06, "evenly on the sphere", color="grey", fontsize=9, va="top")
        axis.set_title(f"{name}, all labels, seed 0")
        axis.set_xlabel("step")
        axis.set_ylim(-4.5, 2.2)
    panels.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=2, fontsize=9, frameon=False)
    panels.tight_layout(rect=(0, 0.18, 1, 1))
    return _png(panels)


def _png(panels: Any) -> bytes:
    found = io.BytesIO()
    panels.savefig(found, format="png", dpi=120)
    plt.close(panels)
    return found.getvalue()
