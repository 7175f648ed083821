"""Tables and picture of the study of merging, from its record."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from common import markdown

RESNET = ("average", "permute", "zip", "zip to stage 2", "zip to stage 1", "ensemble")
COLOURS = dict(zip(RESNET, ("tab:grey", "tab:orange", "tab:blue", "tab:cyan", "tab:green", "black"), strict=True))


class Figures:
    """What the record holds."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.results, self.seeds = record["results"], record["seeds"]
        self.nets: dict[str, list[str]] = record["settings"]["nets"]
        self.ablated: str = record["settings"]["ablated"]

    def of(self, name: str, run: str, what: str = "joint") -> np.ndarray:
        """Per cent of each seed."""
        found = [self.results[f"{name}, seed {seed}: {run}"][what] for seed in self.seeds]
        return 100 * np.asarray(found, float)

    def settings(self, kind: str) -> list[tuple[str, str]]:
        """Data and network of all networks of a kind."""
        return [(what, net) for what, nets in self.nets.items() for net in sorted(nets) if net.startswith(kind)]


def tables(record: dict[str, Any]) -> str:
    figures = Figures(record)
    parts = [
        ("ResNets: joint test accuracy in per cent, mean ± standard deviation over pairs.", _resnets(figures, "joint")),
        ("ResNets: accuracy per task.", _resnets(figures, "per task")),
        ("ResNets: from each method to the next, points of joint accuracy, pair by pair.", _steps(figures)),
        (
            "Mean correlation of the features that permuting pairs, and of each with the nearest of its own model.",
            _correlations(figures),
        ),
        ("ViT: joint accuracy and accuracy per task.", _vits(figures)),
        ("ViT: what zip with the stream rotated gains over others, points, pair by pair.", _gains(figures)),
        (f"Ablations, {figures.ablated}.", _ablations(figures)),
        ("Cost of a merged model, in multiples of one model: FLOPs, parameters.", _costs(figures)),
        (
            "Alpha and beta that were chosen, and joint validation accuracy of the worst and best choice.",
            _chosen(record),
        ),
    ]
    return "\n".join(f"{title}\n\n{markdown(rows)}" for title, rows in parts)


def _cell(values: np.ndarray, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{values.mean():{sign}.1f} ± {values.std(ddof=1):.1f}" if values.size > 1 else f"{values.mean():{sign}.1f}"


def _resnets(figures: Figures, what: str) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("data", "network", "one model", *RESNET)]
    for data, net in figures.settings("ResNet"):
        name = f"{data}, {net}"
        one = figures.of(name, "one model", "joint" if what == "joint" else "own").mean(axis=1)
        cells = [_cell(figures.of(name, run, what)) for run in RESNET]
        rows.append((data, net, _cell(one), *cells))
    return rows


def _steps(figures: Figures) -> list[Sequence[str]]:
    pairs = list(itertools.pairwise(RESNET))
    rows: list[Sequence[str]] = [("data", "network", *(f"{a} → {b}" for a, b in pairs))]
    for data, net in figures.settings("ResNet"):
        name = f"{data}, {net}"
        cells = [_cell(figures.of(name, b) - figures.of(name, a), signed=True) for a, b in pairs]
        rows.append((data, net, *cells))
    return rows


def _correlations(figures: Figures) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        ("data", "network", "stage 1", "stage 2", "stage 3", "all features", "nearest within a model")
    ]
    for data, net in figures.settings("ResNet"):
        found = [figures.results[f"{data}, {net}, seed {seed}: correlations"] for seed in figures.seeds]
        cells = []
        for stage in range(3):
            # A stage's residual stream is named after the first weight that writes it.
            means = [each["stem" if stage == 0 else f"stages/{stage}/0/convs/1"] for each in found]
            cells.append(f"{np.mean(means):.2f}")
        cells.append(f"{np.mean([np.mean(list(each.values())) for each in found]):.2f}")
        near = [figures.results[f"{data}, {net}, seed {seed}: nearest within a model"] for seed in figures.seeds]
        cells.append(f"{np.mean([np.mean(list(each.values())) for each in near]):.2f}")
        rows.append((data, net, *cells))
    return rows


def _vits(figures: Figures) -> list[Sequence[str]]:
    settings = figures.settings("ViT")
    head = [f"{data}, {what}" for data, _ in settings for what in ("joint", "per task")]
    rows: list[Sequence[str]] = [("method", *head)]
    first = f"{settings[0][0]}, {settings[0][1]}, seed {figures.seeds[0]}: "
    runs = [name.removeprefix(first) for name in figures.results if name.startswith(first)]
    runs = [run for run in runs if run not in ("one model", "ensemble", "correlations", "nearest within a model")]
    one = ["one model"]
    for data, net in settings:
        one += [_cell(figures.of(f"{data}, {net}", "one model", key).mean(axis=1)) for key in ("joint", "own")]
    rows.append(one)
    for run in [*runs, "ensemble"]:
        cells = [_cell(figures.of(f"{d}, {n}", run, what)) for d, n in settings for what in ("joint", "per task")]
        rows.append((run, *cells))
    return rows


def _gains(figures: Figures) -> list[Sequence[str]]:
    settings = figures.settings("ViT")
    rows: list[Sequence[str]] = [("over", *(f"{d}, {w}" for d, _ in settings for w in ("joint", "per task")))]
    for run in ("average", "permute", "permute, stream rotated", "zip, stream permuted"):
        cells = [
            _cell(figures.of(f"{d}, {n}", "zip", what) - figures.of(f"{d}, {n}", run, what), signed=True)
            for d, n in settings
            for what in ("joint", "per task")
        ]
        rows.append((run, *cells))
    return rows


def _ablations(figures: Figures) -> list[Sequence[str]]:
    name = figures.ablated
    first = f"{name}, seed {figures.seeds[0]}: "
    runs = [run.removeprefix(first) for run in figures.results if run.startswith(first)]
    rows: list[Sequence[str]] = [("what", "joint", "per task")]
    for run in runs:
        if run in ("one model", "correlations", "nearest within a model"):
            continue
        if run.startswith("merges within"):
            rows.append((run, _cell(figures.of(name, run, "share")), ""))
        else:
            rows.append((run, *(_cell(figures.of(name, run, what)) for what in ("joint", "per task"))))
    return rows


def _costs(figures: Figures) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("network", "method", "FLOPs", "parameters")]
    for name, found in figures.results.items():
        if name.startswith("costs, "):
            net = name.removeprefix("costs, ")
            rows += [(net, method, f"{flops:.2f}", f"{size:.2f}") for method, (flops, size) in found.items()]
    return rows


def _chosen(record: dict[str, Any]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("setting", "alpha, beta", "worst", "best")]
    for name, found in record["results"].items():
        if name.startswith("alpha and beta, "):
            low, high = (f"{100 * value:.1f}" for value in (min(found.values()), max(found.values())))
            rows.append((name.removeprefix("alpha and beta, "), max(found, key=lambda k: found[k]), low, high))
    return rows


def picture(record: dict[str, Any]) -> bytes:
    """Joint accuracy of all methods: of ResNets by width, and of ViTs; as PNG."""
    figures = Figures(record)
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    panels, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 5.4), width_ratios=(1, 0.8, 1.2))
    nets = [net for data, net in figures.settings("ResNet") if data == "digits"]
    for i, run in enumerate(RESNET):
        values = [figures.of(f"digits, {net}", run) for net in nets]
        x = np.arange(len(nets)) + 0.03 * (i - 2.5)
        _line(left, x, values, color=COLOURS[run], label=run)
    left.set_xticks(range(len(nets)), [net.removeprefix("ResNet-20 ") for net in nets])
    left.set_xlabel("width")
    left.set_title("Digits, ResNet-20")
    _bars(figures, middle, [s for s in figures.settings("ResNet") if s[0] != "digits"], RESNET, "ResNet-20")
    runs = ("average", "permute", "zip", "zip to block 3", "zip to block 2", "zip to block 1", "ensemble")
    _bars(figures, right, figures.settings("ViT"), runs, "ViT")
    for axis in (left, middle, right):
        axis.set_ylim(0, 100)
        axis.axhline(10, color="grey", linewidth=1, linestyle=":")
        axis.set_ylabel("joint test accuracy, %")
        axis.legend(fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    panels.tight_layout()
    found = io.BytesIO()
    panels.savefig(found, format="png", dpi=110)
    plt.close(panels)
    return found.getvalue()


def _line(axis: Any, x: Any, values: Sequence[np.ndarray], **style: Any) -> None:
    spread = [each.std(ddof=1) if each.size > 1 else 0.0 for each in values]
    axis.errorbar(x, [each.mean() for each in values], spread, marker="o", markersize=5, capsize=3, **style)


def _bars(figures: Figures, axis: Any, settings: Sequence[tuple[str, str]], runs: Sequence[str], title: str) -> None:
    width = 0.8 / len(runs)
    shades = [*list(COLOURS.values())[:3], "tab:cyan", "tab:green", "tab:olive", "black"]
    if len(runs) == len(RESNET):
        shades = list(COLOURS.values())
    for i, (run, colour) in enumerate(zip(runs, shades, strict=True)):
        values = [figures.of(f"{data}, {net}", run) for data, net in settings]
        x = np.arange(len(settings)) + width * (i - (len(runs) - 1) / 2)
        means, spread = [v.mean() for v in values], [v.std(ddof=1) if v.size > 1 else 0.0 for v in values]
        axis.bar(x, means, width, yerr=spread, color=colour, label=run, error_kw={"elinewidth": 1})
    many = len({net for _, net in settings}) > 1
    names = [f"{data}\n{net.removeprefix('ResNet-20 ')}" if many else data for data, net in settings]
    axis.set_xticks(range(len(settings)), names)
    axis.set_title(title)
