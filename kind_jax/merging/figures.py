"""What was merged at every node, in numbers."""

from __future__ import annotations

import dataclasses

import numpy as np

from kind_jax.merging.match import Match
from kind_jax.merging.plan import Settings, method_of
from kind_jax.merging.statistics import Statistics
from kind_jax.merging.zipping import Zipped


@dataclasses.dataclass(frozen=True)
class Figures:
    """Of one node.

    Attributes:
      name: the layer that writes it first; what is within heads has their number behind it.
      method: what was done.
      features: of each model.
      sizes: how many groups have one member, two, and so on; None where features were rotated.
      within, across: merges of features of one model, and of several models, as joins of two.
      similarity: the mean correlation of features that became one, over pairs; after a rotation, of those in one place.
      dead: features of each model that never change.
    """

    name: str
    method: str
    features: int
    sizes: tuple[int, ...] | None
    within: int
    across: int
    similarity: float | None
    dead: tuple[int, ...]


def figures(zipped: Zipped, settings: Settings) -> list[Figures]:
    """Of every node that was matched, in the order of the network."""
    found = []
    for i in zipped.nodes:
        node = zipped.table.nodes[i]
        if i not in zipped.statistics:
            continue
        statistics = zipped.statistics[i]
        models = statistics.models
        dead = tuple(statistics.dead.reshape(models, -1).sum(axis=1).tolist())
        matches = zipped.plan.matches.get(i)
        name = node.name + (" (queries and keys)" if node.heads is not None and node.paired else "")
        name += " (values)" if node.heads is not None and not node.paired else ""
        features = len(statistics.mean) // models
        how = method_of(node, settings)
        if matches is None:
            rotated = _rotated(statistics, [pair.unmerge for pair in zipped.plan.maps[i,]])
            found.append(Figures(name, how, features, None, 0, 0, rotated, dead))
            continue
        rows = zipped.plan.rows.get(i)
        whole = rows if rows is not None else [np.arange(len(statistics.mean))]
        correlation = statistics.correlation
        sizes = np.bincount(np.concatenate([match.sizes for match in matches]))[1:]
        within, across = map(sum, zip(*(_merges(match) for match in matches), strict=True))
        pairs = np.concatenate(
            [_pairs(match, correlation[np.ix_(own, own)]) for match, own in zip(matches, whole, strict=True)]
        )
        similar = float(pairs.mean()) if len(pairs) else None
        found.append(Figures(name, how, features, tuple(sizes.tolist()), within, across, similar, dead))
    return found


def _merges(match: Match) -> tuple[int, int]:
    counts = np.zeros((len(match.sizes), match.models), int)
    each = len(match.group) // match.models
    np.add.at(counts, (match.group, np.arange(len(match.group)) // each), 1)
    return int(np.maximum(counts - 1, 0).sum()), int(((counts > 0).sum(axis=1) - 1).sum())


def _pairs(match: Match, correlation: np.ndarray) -> np.ndarray:
    """Correlations of all pairs in one group."""
    same = np.triu(match.group[:, None] == match.group[None, :], 1)
    return correlation[same]


def _rotated(statistics: Statistics, unmerges: list[np.ndarray]) -> float:
    width = len(statistics.mean) // statistics.models
    whole = np.zeros((len(statistics.mean),) * 2)
    for m, unmerge in enumerate(unmerges):
        here = slice(m * width, (m + 1) * width)
        whole[here, here] = unmerge.T
    turned = whole @ statistics.covariance @ whole.T
    deviation = np.sqrt(np.maximum(np.diag(turned), 1e-30))
    turned = turned / np.outer(deviation, deviation)
    pairs = [
        np.diag(turned[a * width : (a + 1) * width, b * width : (b + 1) * width])
        for a in range(statistics.models)
        for b in range(a + 1, statistics.models)
    ]
    return float(np.mean(pairs))
