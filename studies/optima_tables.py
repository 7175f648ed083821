"""Tables of the study of module-wise distillation. Runs are found by depth, name and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from common import markdown, spread

MODULES = ("image", "text", "multimodal")
SHOWN: dict[str, tuple[str, float, int]] = {
    "caption_loss": ("caption loss", 1, 3),
    "token_accuracy": ("tokens, %", 100, 2),
    "text_r5": ("text R@5, %", 100, 2),
    "image_r5": ("image R@5, %", 100, 2),
    "zero_shot_top1": ("zero-shot, %", 100, 1),
    "cider": ("CIDEr-D", 1, 3),
}
"""Figures of the test split: what they are called, their unit, and digits."""
FALLS = ("caption_loss",)  # the less the better
RIVALS = ("none", "predictions alone", "all", "uniform", "random", "oracle")


def runs_of(record: Mapping[str, Any], depth: int) -> dict[str, dict[int, Any]]:
    """The runs of students of this depth by name and seed; those of the tuning seed are left out."""
    found: dict[str, dict[int, Any]] = {}
    for name, run in record["results"].items():
        place, _, rest = name.partition("/")
        if place != f"{depth} layers":
            continue
        name, _, seed = rest.rpartition("/")
        if int(seed) != record["tuning_seed"]:
            found.setdefault(name, {})[int(seed)] = run
    return found


def values(runs: Mapping[int, Any], name: str, seeds: Sequence[int] | None = None) -> np.ndarray:
    """A figure of some seeds, in its unit."""
    unit = SHOWN[name][1]
    return np.asarray([unit * runs[seed]["figures"][name] for seed in (sorted(runs) if seeds is None else seeds)])


def difference(ours: Mapping[int, Any], theirs: Mapping[int, Any], name: str) -> np.ndarray:
    """By how much ours are better, of the seeds that both have."""
    both = sorted(set(ours) & set(theirs))
    found = values(ours, name, both) - values(theirs, name, both)
    return -found if name in FALLS else found


def _figures(runs: Mapping[str, Mapping[int, Any]]) -> str:
    rows = [["", "seeds", *(title for title, _, _ in SHOWN.values())]]
    for name, found in runs.items():
        cells = [spread(values(found, figure).tolist(), digits) for figure, (_, _, digits) in SHOWN.items()]
        rows.append([name, str(len(found)), *cells])
    return markdown(rows)


def _differences(runs: Mapping[str, Mapping[int, Any]]) -> str:
    rows = [["Thompson better than", *(title for title, _, _ in SHOWN.values())]]
    for name in RIVALS:
        if name in runs and "thompson" in runs:
            cells = []
            for figure, (_, _, digits) in SHOWN.items():
                found = difference(runs["thompson"], runs[name], figure)
                cells.append(f"{spread(found.tolist(), digits)} ({np.sum(found > 0)} of {len(found)})")
            rows.append([name, *cells])
    return markdown(rows)


def shares(runs: Mapping[int, Any]) -> np.ndarray:
    """The share of the rounds that each module got [seeds, K]."""
    arms = [np.asarray(run["rounds"]["rewarded"]) for _, run in sorted(runs.items())]
    return np.asarray([[np.mean(of == i) for i in range(len(MODULES))] for of in arms])


def rewards(runs: Mapping[int, Any]) -> np.ndarray:
    """The mean reward of each module [K], in thousandths, over all rounds and seeds; NaN where it had no round."""
    arms = np.concatenate([run["rounds"]["rewarded"] for _, run in sorted(runs.items())])
    gains = np.concatenate([run["rounds"]["reward"] for _, run in sorted(runs.items())])
    return np.asarray([1e3 * gains[arms == i].mean() if np.any(arms == i) else np.nan for i in range(len(MODULES))])


def _choices(runs: Mapping[str, Mapping[int, Any]]) -> str:
    heads = [f"share, {name}" for name in MODULES] + [f"reward, {name}, 1e-3" for name in MODULES]
    rows = [["", *heads]]
    for name, found in runs.items():
        if name.startswith(("none", "all", "fixed", "predictions")):
            continue
        got = [spread(column.tolist(), 2) for column in shares(found).T]
        rows.append([name, *got, *(f"{value:.1f}" for value in rewards(found))])
    return markdown(rows)


def tables(record: Mapping[str, Any]) -> str:
    """Everything, as Markdown."""
    results, parts = record["results"], []
    parts.append(f"rate {results.get('rate')}, layer {results.get('layer')}, gamma {results.get('gamma')}\n")
    for name, found in results.get("teacher", {}).items():
        parts.append(f"teacher, {name}: {found}\n")
    for depth in (2, 1):
        runs = runs_of(record, depth)
        if runs:
            parts += [f"students of {depth} + {depth} + {depth} layers\n", _figures(runs), _differences(runs)]
            parts.append(_choices(runs))
    return "\n".join(parts)
