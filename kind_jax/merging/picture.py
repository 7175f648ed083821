"""The picture of a merge: groups and their similarity at every node, and what the result is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from kind_jax.merging.evaluate import Scores
from kind_jax.merging.figures import Figures
from kind_jax.plots import COLOURS, INK, LINE, MUTED, png, style

_KINDS = {"across models": COLOURS[0], "within a model": COLOURS[1], "rotated": COLOURS[3], "left alone": LINE}


def picture(nodes: Sequence[Figures], scores: Mapping[str, Scores]) -> bytes:
    """Merges of each node as shares of its features, their mean correlation, and accuracies."""
    if not nodes:  # an ensemble
        figure = Figure(figsize=(7.5, 2.8), layout="constrained")
        panels = [figure.subplots()]
    else:
        figure = Figure(figsize=(max(7.5, min(0.32 * len(nodes) + 3, 16)), 7.8), layout="constrained")
        panels = list(figure.subplots(3, 1, height_ratios=(3, 2, 3)))
        _merges(panels[0], nodes)
        _similarity(panels[1], nodes)
    _scores(panels[-1], scores)
    for axes in panels:
        style(axes)
    return png(figure)


def _merges(axes: Axes, nodes: Sequence[Figures]) -> None:
    places, base = np.arange(len(nodes)), np.zeros(len(nodes))
    whole = np.array([node.features for node in nodes], float)
    turned = np.array([float(node.sizes is None) for node in nodes])
    across = np.array([node.across for node in nodes]) / whole
    within = np.array([node.within for node in nodes]) / whole
    for (label, colour), share in zip(
        _KINDS.items(), (across, within, turned, 1 - across - within - turned), strict=True
    ):
        axes.bar(places, np.clip(share, 0, 1), 0.74, bottom=base, color=colour, label=label)
        base = base + np.clip(share, 0, 1)
    axes.set_ylim(0, max(1.0, float(base.max(initial=1.0))))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title("merges, as a share of the features", fontsize=10, color=INK, loc="left", fontweight="bold")
    axes.set_xticks([])
    axes.legend(loc="lower right", ncols=4, frameon=False, labelcolor=INK, fontsize=8.5, bbox_to_anchor=(1, 1))


def _similarity(axes: Axes, nodes: Sequence[Figures]) -> None:
    places = np.arange(len(nodes))
    axes.bar(places, [node.similarity or 0 for node in nodes], 0.74, color=COLOURS[2])
    axes.set_title("mean correlation of what became one", fontsize=10, color=INK, loc="left", fontweight="bold")
    axes.set_ylim(min(0, *(node.similarity or 0 for node in nodes)), 1)
    every = -(-len(nodes) // 40)
    axes.set_xticks(places[::every], [_label(node.name) for node in nodes][::every], rotation=90, fontsize=7)


def _label(name: str) -> str:
    """A node's name, short enough to stand below a bar."""
    for long, short in (("blocks/", ""), ("attention/", ""), ("queries and keys", "q, k")):
        name = name.replace(long, short)
    return name


def _scores(axes: Axes, scores: Mapping[str, Scores]) -> None:
    names, places = list(scores), np.arange(len(scores))
    for offset, (label, values) in enumerate(
        (("joint", [s.joint for s in scores.values()]), ("per task", [s.per_task for s in scores.values()]))
    ):
        bars = axes.bar(places + (offset - 0.5) * 0.38, values, 0.36, color=COLOURS[offset], label=label)
        axes.bar_label(bars, [f"{value:.1%}" for value in values], fontsize=8, color=MUTED)
    axes.set_xticks(places, names)
    axes.set_ylim(0, 1.12)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title("accuracy", fontsize=10, color=INK, loc="left", fontweight="bold")
    axes.legend(loc="lower right", ncols=2, frameon=False, labelcolor=INK, fontsize=8.5, bbox_to_anchor=(1, 1))
