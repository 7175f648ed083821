"""Tables and picture of the study of assembling, from its record."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from common import markdown

BUDGETS = {"1/4": 0.25, "1/2": 0.5, "all": 1.0}
BEGUN = "begun as the meta module"
ABLATIONS = {
    (24, 25): ("untrained meta model", BEGUN, "imitation", "no modular training"),
    (12, 25): (BEGUN,),
    (12, 100): (BEGUN,),
}
"""By blocks and per cent of the data."""

Values = dict[int, float]  # by seed


class Figures:
    """What the record holds, by depth and share of the data."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record, self.results = record, record["results"]
        self.seeds: list[int] = record["seeds"]
        self.depths = [int(d) for d in record["settings"]["budgets"]]
        self.shares = sorted((int(s) for s in record["settings"]["images"]), reverse=True)

    def of(self, depth: int, share: int, run: str, take: Callable[[Any], float]) -> Values:
        names = {seed: f"{depth} blocks, {share} %, seed {seed}: {run}" for seed in self.seeds}
        return {seed: take(self.results[name]) for seed, name in names.items() if name in self.results}

    def end_to_end(self, depth: int, share: int, what: str = "equal block-epochs") -> Values:
        return self.of(depth, share, f"end to end, {what}", lambda run: run["test"])

    def meta(self, depth: int, share: int) -> Values:
        return self.of(depth, share, "ours", lambda run: run["meta"]["test"])

    def assembled(self, depth: int, share: int, budget: str) -> Values:
        return self.of(depth, share, "ours", lambda run: run["assembled"][budget])

    def fine_tuned(self, depth: int, share: int) -> Values:
        return self.of(depth, share, "ours", lambda run: run["fine_tuning"]["test"])

    def seconds(self, depth: int) -> dict[str, float] | None:
        return self.results.get(f"seconds of a step, {depth} blocks")


def tables(record: dict[str, Any]) -> str:
    figures = Figures(record)
    parts = [("Test top-1 in per cent, mean ± standard deviation over seeds.", _main(figures))]
    parts.append(("Ablations; chance is 10 %.", _ablations(figures)))
    parts.append(("Three times the steps on both sides, 24 blocks, 25 % of the data.", _longer(figures)))
    parts.append(("Cost of one model, at 25 % of the data; seconds of one CPU core.", _costs(figures)))
    return "\n".join(f"{title}\n\n{markdown(rows)}" for title, rows in parts)


def _cell(values: Values, signed: bool = False) -> str:
    found = 100 * np.asarray(list(values.values()))
    if not found.size:
        return ""
    mean = f"{found.mean():+.1f}" if signed else f"{found.mean():.1f}"
    return mean if found.size == 1 else f"{mean} ± {found.std(ddof=1):.1f}"


def _minus(ours: Values, theirs: Values) -> Values:
    return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}


def _main(figures: Figures) -> list[Sequence[str]]:
    head = (
        "blocks", "data", "end to end, equal block-epochs", "end to end, equal time", "meta model (4 blocks)",
        "assembled, 1/4 of the modular budget", "1/2", "all", "fine-tuned", "gain over end to end (equal "
        "block-epochs; per seed)",
    )  # fmt: skip
    rows: list[Sequence[str]] = [head]
    for depth in figures.depths:
        for share in figures.shares:
            plain, tuned = figures.end_to_end(depth, share), figures.fine_tuned(depth, share)
            values = [plain, figures.end_to_end(depth, share, "equal time"), figures.meta(depth, share)]
            values += [figures.assembled(depth, share, budget) for budget in BUDGETS]
            if not plain:
                continue
            cells = [_cell(each) for each in [*values, tuned]]
            rows.append((str(depth), f"{share} %", *cells, _cell(_minus(tuned, plain), signed=True)))
    return rows


def _ablations(figures: Figures) -> list[Sequence[str]]:
    head = ("blocks", "data", "modules", "assembled, before fine-tuning", "fine-tuned", "gain over incubation")
    rows: list[Sequence[str]] = [(*head, "gain over end to end (equal block-epochs)")]
    for (depth, share), names in ABLATIONS.items():
        ours, plain = figures.fine_tuned(depth, share), figures.end_to_end(depth, share)
        cells = _cell(figures.assembled(depth, share, "all")), _cell(ours), "", _cell(_minus(ours, plain), signed=True)
        rows.append((str(depth), f"{share} %", "incubation, begun at random (as published)", *cells))
        for how in names:
            before = figures.of(depth, share, how, lambda run: run["assembled"])
            after = figures.of(depth, share, how, lambda run: run["fine_tuning"]["test"])
            gains = [_cell(_minus(after, each), signed=True) for each in (ours, plain)]
            rows.append((str(depth), f"{share} %", how, _cell(before), _cell(after), *gains))
    return rows


def _longer(figures: Figures) -> list[Sequence[str]]:
    def of(take: Callable[[Any], float]) -> Values:
        return figures.of(24, 25, "three times the steps", take)

    plain = of(lambda run: run["end to end"]["test"])
    rows: list[Sequence[str]] = [("trained", "assembled, before fine-tuning", "after", "gain over end to end")]
    rows.append(("end to end, equal block-epochs", "", _cell(plain), ""))
    rows.append(("meta model (4 blocks)", "", _cell(of(lambda run: run["meta"]["test"])), ""))
    names = {"incubation": "modules begun at random", "begun as the meta module": "modules begun as the meta module"}
    for key, name in names.items():
        before = of(lambda run, key=key: run[key]["assembled"])
        after = of(lambda run, key=key: run[key]["fine_tuning"]["test"])
        rows.append((name, _cell(before), _cell(after), _cell(_minus(after, plain), signed=True)))
    return rows


def _costs(figures: Figures) -> list[Sequence[str]]:
    head = ("blocks", "what", "steps", "block-epochs", "TFLOPs", "measured seconds", "parallel wall-clock, seconds")
    rows: list[Sequence[str]] = [head]
    images = next(n for share, n in figures.record["settings"]["images"].items() if int(share) == 25)
    seed, batch = figures.seeds[0], figures.record["settings"]["batch"]
    for depth in figures.depths:
        step, name = figures.seconds(depth), f"{depth} blocks, 25 %, seed {seed}: "
        if step is None or name + "ours" not in figures.results:
            continue

        def row(
            what: str, runs: list[Any], seconds: float, parallel: str, depth: int = depth, steps: str = ""
        ) -> Sequence[str]:
            epochs = sum(run["block_steps"] for run in runs) * batch / images
            work = sum(run["flops"] for run in runs) / 1e12
            return str(depth), what, steps, f"{epochs:.0f}", f"{work:.2f}", f"{seconds:.1f}", parallel

        for what in ("equal block-epochs", "equal time"):
            run = figures.results.get(name + f"end to end, {what}")
            if run is not None:
                seconds = step["end to end"] * run["steps"]
                label = f"end to end, {what}"
                rows.append(row(label, [run], seconds, f"{seconds:.1f}", steps=str(run["steps"])))
        ours = figures.results[name + "ours"]
        meta, modules, tuning = ours["meta"], ours["modules"], ours["fine_tuning"]
        times = [step[f"module {k}"] * run["steps"] for k, run in enumerate(modules)]
        first, last = step["meta"] * meta["steps"], step["fine-tuning"] * tuning["steps"]
        count = f"{modules[0]['steps']} each"
        rows.append(row("meta model", [meta], first, f"{first:.1f}", steps=str(meta["steps"])))
        rows.append(row("modules", modules, sum(times), f"{max(times):.1f} (slowest)", steps=count))
        rows.append(row("fine-tuning", [tuning], last, f"{last:.1f}", steps=str(tuning["steps"])))
        whole = f"{first + max(times) + last:.1f}"
        rows.append(row("ours, together", [meta, *modules, tuning], first + sum(times) + last, whole))
    return rows


def picture(record: dict[str, Any]) -> bytes:
    """Accuracy against the share of the data, and of assembled networks against the modular budget; as PNG."""
    figures = Figures(record)
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    panels, axes = plt.subplots(1, 2, figsize=(11, 6.6))
    styles: dict[int, str] = dict(zip(figures.depths, ("-", "--", ":"), strict=False))
    _against_data(figures, axes[0], styles)
    _against_budget(figures, axes[1], styles)
    for axis in axes:
        axis.legend(fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1)
    panels.tight_layout()
    found = io.BytesIO()
    panels.savefig(found, format="png", dpi=120)
    plt.close(panels)
    return found.getvalue()


def _line(axis: Any, x: Sequence[float], values: Sequence[Values], **style: Any) -> None:
    kept = [(a, 100 * np.asarray(list(v.values()))) for a, v in zip(x, values, strict=True) if v]
    if kept:
        spread = [found.std(ddof=1) if found.size > 1 else 0.0 for _, found in kept]
        means = [found.mean() for _, found in kept]
        axis.errorbar([a for a, _ in kept], means, spread, capsize=3, elinewidth=1, **{"markersize": 5, **style})


def _against_data(figures: Figures, axis: Any, styles: dict[int, str]) -> None:
    shares = sorted(figures.shares)
    for i, (depth, style) in enumerate(styles.items()):
        plain = [figures.end_to_end(depth, s) for s in shares]
        timed = [figures.end_to_end(depth, s, "equal time") for s in shares]
        methods = {
            "assembled and fine-tuned": ("tab:blue", "o", [figures.fine_tuned(depth, s) for s in shares]),
            "end to end, equal block-epochs": ("tab:red", "s", plain),
            "end to end, equal time": ("tab:orange", "v", timed),
        }
        for j, (name, (colour, marker, values)) in enumerate(methods.items()):
            beside = [share * 1.02 ** (2 * j - 2 + i) for share in shares]  # error bars that hide no others
            _line(axis, beside, values, color=colour, marker=marker, linestyle=style, label=f"{name}, {depth} blocks")
    for depth, fill in zip(styles, ("full", "none"), strict=False):
        begun = [figures.of(depth, s, BEGUN, lambda run: run["fine_tuning"]["test"]) for s in shares]
        label, form = (
            f"assembled (begun as the meta module) and fine-tuned, {depth} blocks",
            {"marker": "*", "markersize": 11},
        )
        _line(axis, shares, begun, color="tab:cyan", fillstyle=fill, linestyle="", label=label, **form)
    axis.set_xscale("log")
    axis.set_xticks(shares, [f"{share} %" for share in shares])
    axis.minorticks_off()
    axis.set_xlabel("training data")
    axis.set_ylabel("test top-1, %")
    axis.set_title("After training")


def _against_budget(figures: Figures, axis: Any, styles: dict[int, str]) -> None:
    colours = dict(zip(sorted(figures.shares), ("tab:olive", "tab:green", "tab:purple", "tab:brown"), strict=False))
    x = list(BUDGETS.values())
    for i, (depth, style) in enumerate(styles.items()):
        for j, (share, colour) in enumerate(colours.items()):
            values = [figures.assembled(depth, share, budget) for budget in BUDGETS]
            label, beside = f"{depth} blocks, {share} % of the data", [a + 0.006 * (j + 4 * i) for a in x]
            _line(axis, beside, values, color=colour, marker="o", linestyle=style, label=label)
    for how, marker in ((BEGUN, "*"), ("untrained meta model", "x")):
        values = figures.of(24, 25, how, lambda run: run["assembled"])
        _line(
            axis,
            [1.0],
            [values],
            color="black",
            marker=marker,
            markersize=8,
            linestyle="",
            label=f"{how}, 24 blocks, 25 %",
        )
    axis.axhline(10, color="grey", linewidth=1)
    axis.text(0.25, 11, "chance", color="grey", fontsize=9)
    axis.set_xticks(x, BUDGETS)
    axis.set_ylim(0, None)
    axis.set_xlabel("modular budget (each a run of its own)")
    axis.set_title("Assembled, before fine-tuning")
