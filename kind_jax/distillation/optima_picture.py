"""What a run of OPTIMA chose and why, over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kind_jax.plots import COLOURS, png, style


def modules_png(lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes | None:
    """PNG of three panels over steps: the module of each round, the rewards, and what is believed of each module's
    (mean and one standard deviation); None without a round.

    Args:
      lines: of metrics.jsonl; those of turns have an ``arm``.
    """
    turns = [line for line in lines if "arm" in line]
    if len(turns) < 2:
        return None
    steps = np.asarray([line["step"] for line in turns])
    figure = Figure(figsize=(8.4, 6.4), layout="constrained")
    upper, middle, lower = figure.subplots(3, 1, sharex=True)
    for axes in (upper, middle, lower):
        style(axes)
    chosen = np.asarray([line["arm"] for line in turns]).astype(int)
    ends = [line for line in turns if "reward" in line]
    for i, name in enumerate(names):
        colour, mine = COLOURS[i % len(COLOURS)], chosen[:-1] == i
        upper.broken_barh(
            [(a, b - a) for a, b in zip(steps[:-1][mine], steps[1:][mine], strict=True)], (i - 0.4, 0.8), color=colour
        )
        own = [(line["step"], line["reward"]) for line in ends if int(line["rewarded"]) == i]
        middle.plot(*(zip(*own, strict=True) if own else ([], [])), "o", markersize=3, color=colour)
        mean, deviation = (np.asarray([line[f"{what}_{name}"] for line in turns]) for what in ("mean", "deviation"))
        lower.plot(steps, mean, color=colour, linewidth=1.6, label=name)
        lower.fill_between(steps, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0)
    upper.set_yticks(range(len(names)), names)
    upper.set_ylim(-0.6, len(names) - 0.4)
    upper.set_ylabel("module of the round")
    middle.axhline(0, color="0.7", linewidth=0.8)
    middle.set_ylabel("reward")
    lower.set_ylabel("believed reward,\nscaled")
    lower.set_xlabel("step")
    lower.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return png(figure)


def shares(lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """The share of the rounds that each module got; of those that have ended."""
    ended = [int(line["rewarded"]) for line in lines if "rewarded" in line]
    return {name: float(np.mean(np.asarray(ended) == i)) if ended else 0.0 for i, name in enumerate(names)}
