"""Pictures of the study of module-wise distillation: figures by policy, and which module got the rounds, over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from optima_tables import MODULES, SHOWN, runs_of, values

from kind_jax.plots import COLOURS, png, style

POLICIES = (
    "none", "predictions alone", "all", "uniform", "random", "thompson", "dsts", "window", "greedy",
    "fixed:image", "fixed:text", "fixed:multimodal", "oracle", "untrained teacher",
)  # fmt: skip
CHOOSING = ("thompson", "dsts", "window", "greedy", "oracle")
PANELS = ("caption_loss", "token_accuracy", "text_r5", "cider")


def picture(record: Mapping[str, Any]) -> bytes:
    """Test figures of all seeds by policy, with means; one row of panels for each depth."""
    depths = [depth for depth in (2, 1) if runs_of(record, depth)]
    counts = [sum(name in runs_of(record, depth) for name in POLICIES) for depth in depths]
    figure = Figure(figsize=(13, 1.4 + 0.3 * sum(counts)), layout="constrained")
    grid = figure.subplots(len(depths), len(PANELS), squeeze=False, height_ratios=counts)
    for depth, line in zip(depths, grid, strict=True):
        runs = runs_of(record, depth)
        names = [name for name in POLICIES if name in runs][::-1]
        for axes, figure_name in zip(line, PANELS, strict=True):
            style(axes)
            for y, name in enumerate(names):
                found = values(runs[name], figure_name)
                axes.plot(found, np.full(len(found), y), "o", color=COLOURS[0], alpha=0.4, markersize=4)
                axes.plot([found.mean()] * 2, [y - 0.35, y + 0.35], color=COLOURS[1], linewidth=2)
            axes.axvline(values(runs["thompson"], figure_name).mean(), color="0.8", linewidth=1, zorder=0)
            axes.set_yticks(range(len(names)), names if axes is line[0] else [""] * len(names))
            axes.set_xlabel(SHOWN[figure_name][0])
        line[0].set_title(f"students of {depth} + {depth} + {depth} layers", loc="left", fontsize=10)
    return png(figure)


def rounds_picture(record: Mapping[str, Any]) -> bytes:
    """The share of seeds in which a module had the round, over rounds, for each policy that chooses."""
    runs = runs_of(record, 2)
    names = [name for name in CHOOSING if name in runs]
    figure = Figure(figsize=(2.6 * len(names) + 1.5, 3.0), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        style(axes)
        arms = np.asarray([run["rounds"]["rewarded"] for _, run in sorted(runs[name].items())])
        bins = np.array_split(np.arange(arms.shape[1]), 6)  # of rounds
        got = np.asarray([[np.mean(arms[:, of] == i) for of in bins] for i in range(len(MODULES))])
        axes.stackplot([of.mean() + 1 for of in bins], got, colors=COLOURS[: len(MODULES)], labels=MODULES)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("round")
        axes.set_ylim(0, 1)
    figure.axes[0].set_ylabel("share of the rounds")
    figure.axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return png(figure)
