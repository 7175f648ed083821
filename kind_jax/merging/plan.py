"""What becomes of the features of every node: which of N models' features are merged, and how. n: features of a node.

Merged features are f* = Σ_m M_m f_m, and a model's own are recovered as f_m ≈ U_m f*. Features of attention heads are
matched head by head: heads of all models are assigned to those of the first, and features within those that belong
together. Queries and keys are never merged with others of one model, because no weight stands between them to undo it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Sequence
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from kind_jax.config.check import check_choice
from kind_jax.errors import UserError
from kind_jax.merging.maps import Maps, Nodes
from kind_jax.merging.match import Match, Method, check_settings, match
from kind_jax.merging.rotation import rotations
from kind_jax.merging.statistics import Statistics
from kind_jax.merging.table import Node, Place, Table

Stream = Literal["identity", "permute", "zip", "orthogonal"]
"""How the residual stream of a network with LayerNorms is aligned."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How features are matched; see :func:`kind_jax.merging.match.match`.

    Attributes:
      stream: what is done about features that a LayerNorm is computed over.
      epsilon: 0 takes exact means over groups; the published code has 1e-5.
    """

    method: Method = "zip"
    alpha: float = 0.3
    beta: float = 0.125
    stream: Stream = "orthogonal"
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        check_settings(self.method, self.alpha, self.beta, self.epsilon)
        check_choice(self.stream, Stream, "stream")


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Attributes:
    maps: of each model, for the nodes whose features stand together on an axis: one, or heads and what is in them.
    matches: of each node that was matched at once; of the inside of heads, one for each head.
    rows: of the inside of heads, which of all models' features each of these was of.
    """

    maps: dict[Nodes, tuple[Maps, ...]] = dataclasses.field(default_factory=dict)
    matches: dict[int, tuple[Match, ...]] = dataclasses.field(default_factory=dict)
    rows: dict[int, tuple[np.ndarray, ...]] = dataclasses.field(default_factory=dict)


def method_of(node: Node, settings: Settings) -> str:
    """What is done at a node."""
    if settings.method == "identity":
        return "identity"
    if node.normed and node.heads is None:
        return settings.stream
    return "permute" if node.paired else settings.method


def wanted(table: Table, nodes: Sequence[int], trunk: Container[str] | None = None) -> list[list[Place]]:
    """Where the features of nodes are measured.

    At the last place where they are read, which for a residual stream is its end; of a stream behind LayerNorms, at all
    of them; of queries and keys, at both. Where a ``trunk`` of leaves is merged, up to the first leaf behind it.

    Raises:
      UserError: features that nothing reads.
    """
    found = []
    for i in nodes:
        places: dict[int, Place] = {}
        for place in table.places[i]:
            places[place.index] = place
            if trunk is not None and place.leaf is not None and place.leaf not in trunk:
                break
        if not places:
            raise UserError(f"nothing reads the features of {table.nodes[i].name}, so they cannot be matched.")
        node = table.nodes[i]
        every = node.normed or node.paired
        found.append(list(places.values()) if every else list(places.values())[-1:])
    return found


def measured(table: Table, nodes: Sequence[int]) -> list[int]:
    """The nodes of ``nodes`` that have features to measure: heads as such have none."""
    return [i for i in nodes if not table.nodes[i].inside]


def make(table: Table, statistics: dict[int, Statistics], models: int, settings: Settings) -> Plan:
    """Match the features of the nodes that there are statistics of."""
    made = Plan()
    for i, node in enumerate(table.nodes):
        if node.inside:
            if all(inside in statistics for inside in node.inside):
                _heads(table, i, statistics, models, settings, made)
        elif node.heads is None and i in statistics:
            how = method_of(node, settings)
            if how == "orthogonal":
                made.maps[i,] = rotations(statistics[i], models)
            else:
                found = _match(statistics[i].correlation, models, how, settings)
                made.maps[i,] = _maps(found)
                made.matches[i] = (found,)
    return made


def check_samples(table: Table, statistics: dict[int, Statistics]) -> None:
    """Refuse statistics of fewer samples than a model has features somewhere, or of features none of which changes.

    Raises:
      UserError: naming the node, how often its features were seen, and how often they must be.
    """
    for i, found in statistics.items():
        features = len(found.mean) // found.models
        if features > 1 and found.dead.reshape(found.models, -1).all(axis=1).any():
            raise UserError(
                f"no feature of {table.nodes[i].name} changes on these images in one of the models, so that nothing "
                "can be matched there. (Networks are run one sample at a time, and must not normalise over the batch.)"
            )
        if found.count < features:
            raise UserError(
                f"the {features} features of {table.nodes[i].name} were seen {found.count} times, counting pixels or "
                f"tokens, but that must be {features} times or more: more images are needed."
            )


def _match(correlation: np.ndarray, models: int, method: str, settings: Settings) -> Match:
    return match(correlation, models, method, settings.alpha, settings.beta, epsilon=settings.epsilon)


def _maps(found: Match) -> tuple[Maps, ...]:
    return tuple(Maps(*found.of(m)) for m in range(found.models))


def _heads(
    table: Table, node: int, statistics: dict[int, Statistics], models: int, settings: Settings, made: Plan
) -> None:
    """Heads by what is in them, then what is in heads that belong together."""
    count, inside = table.nodes[node].size, table.nodes[node].inside
    free = [i for i in inside if not table.nodes[i].paired] or list(inside)
    if settings.method == "identity":
        partner = np.tile(np.arange(count), (models, 1))
    else:
        partner = _assigned([statistics[i].correlation for i in free], models, count)
    eye = np.eye(count, dtype=np.float32)
    made.maps[node,] = tuple(Maps(eye[partner[m]] / models, eye[partner[m]].T) for m in range(models))
    for i in inside:
        each = table.nodes[i].size
        how = method_of(table.nodes[i], settings)
        merges = [np.zeros((count * each, count * each), np.float32) for _ in range(models)]
        unmerges = [np.zeros((count * each, count * each), np.float32) for _ in range(models)]
        found, of = [], []
        for head in range(count):
            rows = [np.arange(each) + (m * count + partner[m][head]) * each for m in range(models)]
            own = np.concatenate(rows)
            of.append(own)
            found.append(_match(statistics[i].correlation[np.ix_(own, own)], models, how, settings))
            here = slice(head * each, (head + 1) * each)
            for m, (merge, unmerge) in enumerate(_maps(found[-1])):
                there = slice(partner[m][head] * each, (partner[m][head] + 1) * each)
                merges[m][here, there], unmerges[m][there, here] = merge, unmerge
        made.maps[node, i] = tuple(Maps(*pair) for pair in zip(merges, unmerges, strict=True))
        made.matches[i], made.rows[i] = tuple(found), tuple(of)


def _assigned(correlations: Sequence[np.ndarray], models: int, heads: int) -> np.ndarray:
    """For each model, its head that belongs to each head of the first: the greatest sum over best pairs of features."""
    partner = np.zeros((models, heads), np.int64)
    partner[0] = np.arange(heads)
    for m in range(1, models):
        scores = np.zeros((heads, heads))
        for correlation in correlations:
            each = len(correlation) // (models * heads)
            for a in range(heads):
                for b in range(heads):
                    start = (m * heads + b) * each
                    block = correlation[a * each : (a + 1) * each, start : start + each]
                    scores[a, b] += block[linear_sum_assignment(block, maximize=True)].sum()
        partner[m] = linear_sum_assignment(scores, maximize=True)[1]
    return partner


def check_models(models: int, settings: Settings) -> None:
    """Refuse a method that is not for so many models."""
    if settings.method == "optimal" and models != 2:
        raise UserError(f"models is {models}, but it must be 2 for method 'optimal', which pairs features.")
