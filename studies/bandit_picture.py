"""Picture of the study of the bandit: who notices that the best arm has changed, and who distils well."""

from __future__ import annotations

import io
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

LINES = {
    "Thompson, gamma 1": ("tab:grey", "-"), "Thompson, gamma 0.99": ("tab:cyan", "-"),
    "Thompson, gamma 0.98": ("tab:blue", "-"), "Thompson, gamma 0.9": ("navy", "-"),
    "DS-TS, gamma 0.98, tau_max 0.2": ("tab:orange", "-"), "window of 50": ("tab:green", "--"),
    "greedy, gamma 0.98": ("tab:red", ":"),
}  # fmt: skip


def picture(record: dict[str, Any]) -> bytes:
    """Share of the best arm by round, and sums of losses; as PNG."""
    settings, results = record["settings"], record["results"]
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    panels, (left, right) = plt.subplots(1, 2, figsize=(14, 5.6), width_ratios=(1.15, 1))
    _shares(left, settings, results["ways"])
    _sums(right, results)
    panels.tight_layout()
    found = io.BytesIO()
    panels.savefig(found, format="png", dpi=110)
    plt.close(panels)
    return found.getvalue()


def _shares(axis: Any, settings: dict[str, Any], ways: dict[str, Any]) -> None:
    width, arms = settings["rounds_of_a_point"], len(settings["means"])
    for name, (colour, style) in LINES.items():
        shares = ways[name]["share by rounds"]
        x = width * (np.arange(len(shares)) + 0.5)
        axis.plot(x, shares, style, color=colour, linewidth=1.8, label=name)
    axis.axvline(settings["swap_before_round"], color="grey", linewidth=1)
    axis.axhline(1 / arms, color="grey", linewidth=1, linestyle=":")
    axis.text(20, 1 / arms - 0.015, "in turn, or at random", color="grey", fontsize=9, va="top")
    axis.set_ylim(0, 1.02)
    axis.set_xlim(0, settings["rounds"])
    axis.set_xlabel("round")
    axis.set_ylabel("share of the best arm")
    axis.set_title("The best and the worst arm change places")
    axis.legend(fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)


def _sums(axis: Any, results: dict[str, Any]) -> None:
    # Greedy and cold stay with one arm, at sums of nearly 2.
    found = {n: f for n, f in results["distillation"].items() if not n.startswith("greedy") and not n.endswith("cold")}
    names = sorted(found, key=lambda name: -found[name]["mean"])
    means, spread = ([found[name][key] for name in names] for key in ("mean", "deviation"))
    axis.errorbar(means, range(len(names)), xerr=spread, fmt="o", color="tab:blue", capsize=3, markersize=5)
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.axvline(found["in turn"]["mean"], color="grey", linewidth=1, linestyle=":")
    best = results["what will fall most"]
    axis.axvline(best, color="grey", linewidth=1)
    axis.text(best + 0.003, -0.3, "what will\nfall most", color="grey", fontsize=9)
    axis.set_xlabel("sum of three losses after 120 rounds (less is better)")
    axis.set_title("Distillation in three numbers")
