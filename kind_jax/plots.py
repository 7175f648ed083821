"""Pictures of numbers as PNG: the loss over a run, and where the energy of the weights sits."""

import io
import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

INK, MUTED, LINE, _PAPER = "#1f2430", "#6b7280", "#e5e7eb", "#ffffff"
COLOURS = ("#4263eb", "#f59f00", "#12a37c", "#d6336c", "#7950f2", "#868e96")
_DPI = 144


def style(axes: Axes) -> None:
    """What all plots have in common: no frame, and faint lines across."""
    axes.set_facecolor(_PAPER)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor=_PAPER, bbox_inches="tight", pad_inches=0.16)
    return buffer.getvalue()


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over a centred window that shrinks at both ends; values that are not finite do not count."""
    good = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(good, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(good)])
    at = np.arange(len(values))
    half = np.minimum(window // 2, np.minimum(at, len(values) - 1 - at))
    low, high = at - half, at + half + 1
    total = counts[high] - counts[low]
    return np.where(total > 0, (sums[high] - sums[low]) / np.maximum(total, 1), np.nan)


def loss_curve(
    steps: Sequence[int], losses: Sequence[float], eval_points: Sequence[tuple[int, float]] | None = None
) -> bytes:
    """The training loss, faint as logged and bold when smoothed, with held-out losses as dots.

    The upper end of the axis leaves out the first tenth of the run where that part towers over the rest.
    """
    assert len(steps) == len(losses), "one loss a step"
    x, y = np.asarray(steps, np.float64), np.asarray(losses, np.float64)
    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    style(axes)
    window = max(len(y) // 25, 1)
    smoothed = window >= 3
    axes.plot(x, y, color=COLOURS[0], linewidth=1.0 if smoothed else 1.8, alpha=0.3 if smoothed else 1.0)
    if smoothed:
        axes.plot(x, _smooth(y, window), color=COLOURS[0], linewidth=2.0, label="training")
    else:
        axes.lines[0].set_label("training")
    if eval_points:
        at, held_out = zip(*eval_points, strict=True)
        axes.plot(at, held_out, "o-", color=COLOURS[1], linewidth=1.4, markersize=5, label="held out")
    finite = y[np.isfinite(y)]
    later = y[len(y) // 10 :]
    later = np.concatenate([later[np.isfinite(later)], [v for _, v in eval_points or () if np.isfinite(v)]])
    if len(later) and finite.max() > 2.5 * later.max() > 0:
        axes.set_ylim(top=later.max() * 1.4)
    if len(finite) and finite.min() >= 0:
        axes.set_ylim(bottom=0.0)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.margins(x=0.01)
    if eval_points:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper right")
    return png(figure)


def _panels(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Sort names such as ``blocks.3.attn.qkv`` into panels ``attn.qkv`` of layers ``3``.

    Returns:
      For each panel, the full name of each layer; one panel of everything if some name has no number or two names
      would share a place.
    """
    panels: dict[str, dict[str, str]] = {}
    for name in names:
        match = re.search(r"\d+", name)
        if match is None:
            return {"": {n: n for n in names}}
        rest = (name[: match.start()] + name[match.end() :]).replace("blocks", "").replace("layers", "")
        title = re.sub(r"[.\s/_-]{2,}", ".", rest).strip(" ./_-")
        if match.group() in panels.setdefault(title, {}):
            return {"": {n: n for n in names}}
        panels[title][match.group()] = name
    return panels


def _bars(axes: Axes, layers: Mapping[str, Mapping[str, float]], members: Mapping[str, str], parts: list[str]) -> None:
    places = np.arange(len(members))
    bottom = np.zeros(len(members))
    for part, colour in zip(parts, COLOURS * (len(parts) // len(COLOURS) + 1), strict=False):
        heights = np.array([float(layers[name].get(part, 0.0)) for name in members.values()])
        axes.bar(places, heights, 0.74, bottom=bottom, color=colour, label=part)
        bottom += heights
    every = -(-len(members) // 14)  # more tick labels than this run into each other
    axes.set_xticks(places[::every], list(members)[::every])
    axes.set_xlim(-0.6, len(members) - 0.4)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def energy_bars(layers: Mapping[str, Mapping[str, float]]) -> bytes:
    """Stacked bars of the energy (sum of squares) of each kind of component in each factored weight.

    Args:
      layers: for each weight the energy of each part, as in ``{"blocks.0.qkv": {"learngenes": 3.1, "tailors": 0.4}}``.
        Names with a number make one panel a projection with the layers side by side; other names make one panel.
    """
    assert layers, "no layers to draw"
    panels = _panels(list(layers))
    parts = list(dict.fromkeys(part for energies in layers.values() for part in energies))
    most = max(len(members) for members in panels.values())
    columns = 1 if len(panels) == 1 or most > 40 else 2 if most > 8 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(7.6 if columns == 2 or len(panels) == 1 else 8.4, 2.1 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, members) in zip(grid.flat, panels.items(), strict=False):
        style(axes)
        _bars(axes, layers, members, parts)
        axes.set_title("" if title == "layer" else title, fontsize=10, color=INK, loc="left", fontweight="bold")
        if title or len(panels) > 1 or all(label.isdigit() for label in members):
            axes.set_xlabel("layer", fontsize=8.5)
        else:
            axes.tick_params(axis="x", rotation=35)
    figure.supylabel("energy", fontsize=9, color=MUTED)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper right", ncols=len(parts), frameon=False, labelcolor=INK, fontsize=9
    )
    return png(figure)


def curves(
    lines: Mapping[str, Sequence[tuple[float, Sequence[float]]]],
    x_label: str,
    y_label: str,
    *,
    level: float | None = None,
) -> bytes:
    """Mean and range over repetitions against x, both axes logarithmic; the first line is drawn thickest.

    Args:
      lines: name of each line, and for each x the values of all repetitions.
      level: a y to mark by a dashed line, like what real data get.
    """
    figure = Figure(figsize=(8.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    style(axes)
    for i, (name, points) in enumerate(lines.items()):
        x = [at for at, _ in points]
        values = [np.asarray(v, np.float64) for _, v in points]
        dashes, marker = (("-", "o"), ("--", "s"), (":", "^"))[i // len(COLOURS) % 3]
        colour = COLOURS[i % len(COLOURS)]
        size = 4 if len(points) > 1 else 7
        axes.plot(x, [v.mean() for v in values], dashes, marker=marker, markersize=size, color=colour, label=name,
                  linewidth=1.4 if i else 2.8, zorder=3 if i else 4)  # fmt: skip
        axes.fill_between(
            x, [v.min() for v in values], [v.max() for v in values], color=colour, alpha=0.12, linewidth=0
        )
    if level is not None:
        axes.axhline(level, color=MUTED, linewidth=1.0, linestyle=(0, (4, 4)))
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({at for points in lines.values() for at, _ in points})
    if all(len(points) > 1 for points in lines.values()) and len(ticks) <= 10:
        axes.set_xticks(ticks, [EngFormatter(sep="", places=None)(t) for t in ticks])
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="both", length=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return png(figure)


def matrix(panels: Mapping[str, np.ndarray], x_label: str, y_label: str) -> bytes:
    """Square matrices of fractions side by side, on one scale from 0 to 1."""
    figure = Figure(figsize=(4.2 * len(panels) + 0.8, 4.2), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    image = None
    for axes, (name, values) in zip(grid, panels.items(), strict=True):
        image = axes.imshow(values, vmin=0.0, vmax=1.0, cmap="Blues")
        axes.set_title(name, fontsize=10, color=INK, loc="left")
        axes.set_xlabel(x_label, color=MUTED)
        axes.set_xticks(range(values.shape[1]))
        axes.set_yticks(range(values.shape[0]))
        axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    grid[0].set_ylabel(y_label, color=MUTED)
    if image is not None:
        figure.colorbar(image, ax=list(grid), shrink=0.8).outline.set_visible(False)  # pyright: ignore
    return png(figure)


def confusion(shares: np.ndarray, names: Sequence[str]) -> bytes:
    """Shares [K, K] of each true class (rows) that were taken for each class; numbers where there is room for them."""
    count = len(names)
    side = min(max(3.6, 0.5 * count + 1.6), 12.0)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    # A root lets few mistakes be seen beside many right answers.
    axes.imshow(np.sqrt(shares), vmin=0.0, vmax=1.0, cmap="Blues")
    if count <= 25:
        axes.set_xticks(range(count), names, rotation=90)
        axes.set_yticks(range(count), names)
        for i, j in zip(*np.nonzero(shares >= 0.005), strict=True):
            colour = _PAPER if shares[i, j] > 0.3 else INK
            axes.text(j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", fontsize=8, color=colour)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    axes.set_xlabel("taken for (%)" if count <= 25 else "taken for", color=MUTED)
    axes.set_ylabel("true class", color=MUTED)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return png(figure)


def reliability(bins: np.ndarray) -> bytes:
    """Accuracy against confidence, of intervals [N, 3]: images, sum of confidences, right ones; dots are images."""
    figure = Figure(figsize=(4.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    style(axes)
    used = bins[bins[:, 0] > 0]
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle=(0, (4, 4)))
    sizes = 20 + 180 * used[:, 0] / max(used[:, 0].max(initial=1), 1)
    axes.plot(used[:, 1] / used[:, 0], used[:, 2] / used[:, 0], color=COLOURS[0], linewidth=1.2, zorder=3)
    axes.scatter(used[:, 1] / used[:, 0], used[:, 2] / used[:, 0], s=sizes, color=COLOURS[0], zorder=4)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share that is right")
    return png(figure)


def share_curve(points: Sequence[tuple[int, float]]) -> bytes:
    """A share, like accuracy, over the steps of a run."""
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    style(axes)
    at, shares = zip(*points, strict=True)
    axes.plot(at, [100 * share for share in shares], "o-", color=COLOURS[1], linewidth=1.8, markersize=5)
    best = int(np.argmax(shares))
    axes.annotate(
        f"{100 * shares[best]:.1f}", (at[best], 100 * shares[best]), xytext=(0, 7), textcoords="offset points",
        ha="center", fontsize=9, color=INK,
    )  # fmt: skip
    axes.set_xlabel("step")
    axes.set_ylabel("accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.margins(x=0.03, y=0.15)
    return png(figure)


def over_steps(lines: Mapping[str, Sequence[tuple[int, float]]], y_label: str, *, scale: float = 1.0) -> bytes:
    """Figures of several runs over their steps; a run without any is left out.

    Args:
      scale: of the figures, like 100 for shares in per cent.
    """
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    style(axes)
    for i, (name, points) in enumerate(lines.items()):
        if points:
            at, values = zip(*points, strict=True)
            dashes = ("-", "--", ":")[i // len(COLOURS) % 3]
            marker = "o" if len(points) <= 12 else ""
            axes.plot(at, [scale * value for value in values], dashes, marker=marker, markersize=4, linewidth=1.6,
                      color=COLOURS[i % len(COLOURS)], label=name)  # fmt: skip
    axes.set_xlabel("step")
    axes.set_ylabel(y_label)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.margins(x=0.03, y=0.1)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return png(figure)
