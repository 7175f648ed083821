"""The picture of a composition: what each weight kept."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kind_jax.deploy.record import Composition, Kept
from kind_jax.plots import COLOURS, INK, LINE, MUTED, png, style

_COLOUR = {
    "one dense matrix": COLOURS[2],
    "learngenes": COLOURS[0],
    "tailors of a group": COLOURS[1],
    "left out": LINE,
}


def composition_bars(record: Composition) -> bytes:
    """A panel for each projection and a bar for each block: components kept, those left out, and what became dense."""
    panels: dict[str, list[Kept]] = {}
    for kept in record.weights:
        panels.setdefault(kept.name.partition("/")[2], []).append(kept)
    columns = min(3, len(panels)) if len(record.weights) <= 40 * len(panels) else 1
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(8.4, 2.1 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, members) in zip(grid.flat, panels.items(), strict=False):
        style(axes)
        _bars(axes, members, record.folded)
        axes.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
        axes.set_xlabel("layer", fontsize=8.5)
    figure.supylabel("components", fontsize=9, color=MUTED)
    drawn = {label: h for axes in grid.flat for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    handles = {label: drawn[label] for label in _COLOUR if label in drawn}
    figure.legend(
        handles.values(), handles, loc="outside upper right", ncols=len(handles), frameon=False, labelcolor=INK,
        fontsize=9,
    )  # fmt: skip
    return png(figure)


def _bars(axes: Axes, members: list[Kept], folded: bool) -> None:
    places = np.arange(len(members))
    dense = np.array([k.form == "dense" for k in members])
    shared = np.array([k.learngenes for k in members])
    own = np.array([k.tailors for k in members])
    whole = np.array([k.of_learngenes + k.of_tailors for k in members])
    inside = np.array([k.of_learngenes + (k.of_tailors if folded else 0) for k in members])
    # A weight that has no components, being dense from the start, is drawn as one full bar.
    height = np.where(dense, np.maximum(inside, whole == 0), 0)
    tailors = np.where(dense & folded, 0, own)
    learngenes = np.where(dense, 0, shared)
    gone = np.where(whole == 0, 0, whole - height - tailors - learngenes)
    bottom = np.zeros(len(members))
    for (label, colour), values in zip(_COLOUR.items(), (height, learngenes, tailors, gone), strict=True):
        if np.any(values):
            axes.bar(places, values, 0.74, bottom=bottom, color=colour, label=label)
        bottom += values
    every = -(-len(members) // 14)
    axes.set_xticks(places[::every], [k.name.partition("/")[0] for k in members][::every])
    axes.set_xlim(-0.6, len(members) - 0.4)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    if whole.max() == 0:
        axes.set_yticks([])
