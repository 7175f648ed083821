"""The picture of a decomposition: who holds the energy of each dense weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kind_jax.deploy.divide import Layer
from kind_jax.plots import COLOURS, INK, LINE, MUTED, png, style

_COLOUR = {"learngenes": COLOURS[0], "tailors of a group": COLOURS[1], "neither": LINE}


def energy_shares(layers: Sequence[Layer]) -> bytes:
    """A panel for each projection and a bar for each block: learngenes, one group's tailors, and what is lost."""
    panels: dict[str, list[Layer]] = {}
    for layer in layers:
        panels.setdefault(layer.name.partition("/")[2], []).append(layer)
    columns = min(2 if len(panels) == 4 else 3, len(panels))
    count = -(-len(panels) // columns)
    figure = Figure(figsize=(8.4, 2.1 * count + 0.7), layout="constrained")
    grid = figure.subplots(count, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, members) in zip(grid.flat, panels.items(), strict=False):
        style(axes)
        _bars(axes, members)
        d_in, d_out = members[0].shape
        axes.set_title(f"{title}, {d_in} x {d_out}", fontsize=10, color=INK, loc="left", fontweight="bold")
        axes.set_xlabel("layer", fontsize=8.5)
    figure.supylabel("share of the energy", fontsize=9, color=MUTED)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False, labelcolor=INK, fontsize=9)
    return png(figure)


def _bars(axes: Axes, members: Sequence[Layer]) -> None:
    places, bottom = np.arange(len(members)), np.zeros(len(members))
    learngenes = np.array([layer.energy_learngenes for layer in members])
    both = np.array([layer.energy for layer in members])
    for (label, colour), values in zip(_COLOUR.items(), (learngenes, both - learngenes, 1 - both), strict=True):
        axes.bar(places, values, 0.74, bottom=bottom, color=colour, label=label)
        bottom += values
    every = -(-len(members) // 14)
    axes.set_xticks(places[::every], [layer.name.partition("/")[0] for layer in members][::every])
    axes.set_xlim(-0.6, len(members) - 0.4)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
