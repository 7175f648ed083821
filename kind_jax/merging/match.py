"""Which features of several models become one. N: models, n: features of each, D = N n.

The D features of a place in the networks are put into groups, by their correlations: within a model too, which is what
tells *zip* from permuting one model's features into another's order.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from kind_jax.config.check import check_choice, is_whole, require
from kind_jax.errors import UserError
from kind_jax.merging import greedy

Method = Literal["zip", "permute", "identity", "optimal"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Match:
    """Groups of features.

    Attributes:
      group: the group of each feature, numbered by the order of their first members.
      order: of ``zip``, the two groups that each merge joined, by their first features.
      models: N.
      epsilon: added to the size of a group where a mean is taken over it, as the published code does.
    """

    group: Int[np.ndarray, " D"]
    order: Int[np.ndarray, "merges 2"]
    models: int
    epsilon: float | int = 0.0

    @property
    def sizes(self) -> Int[np.ndarray, " n"]:
        """Features in each group."""
        return np.bincount(self.group)

    @property
    def unmerge(self) -> Float[np.ndarray, "D n"]:
        """From merged features back to those of the models: a 1 in each row, for its group."""
        return np.eye(len(self.sizes), dtype=np.float32)[self.group]

    @property
    def merge(self) -> Float[np.ndarray, "n D"]:
        """To merged features: the mean over each group."""
        return self.unmerge.T / (self.sizes[:, None] + np.float32(self.epsilon)).astype(np.float32)

    def of(self, model: int) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "m n"]]:
        """The columns of :attr:`merge` and the rows of :attr:`unmerge` that are of one model."""
        each = len(self.group) // self.models
        rows = slice(model * each, (model + 1) * each)
        return self.merge[:, rows], self.unmerge[rows]


def match(
    correlation: Any,
    models: int = 2,
    method: Method | str = "zip",
    alpha: Any = 0.3,
    beta: Any = 0.125,
    *,
    epsilon: Any = 1e-5,
) -> Match:
    """Put the features of ``models`` models, one model's after the other's, into as many groups as one model has
    features.

    Args:
      correlation: [D, D], of all features with each other.
      method: ``zip`` joins the two most similar groups again and again, whosever they are; ``permute`` gives each
        feature of the first model one of every other model, so that the sum of correlations is greatest; ``identity``
        joins features of the same number, which averages weights; ``optimal`` pairs the features of two models by
        maximum weight matching, within a model too.
      alpha: of ``zip``: what is left of the similarity of a group that was joined, alpha times the lesser one of its
        parts to every other; 0 or less takes it out, so that nothing joins it again.
      beta: of ``zip``: share of the merges that a model may make within itself, at most; there is always one.
      epsilon: see :class:`Match`; 0 takes exact means.

    Raises:
      UserError: a matrix that is not square, finite and symmetric, or whose side is no multiple of the number of
        models; a method, an alpha or a beta that is none; or ``optimal`` of other than two models.
    """
    check_settings(method, alpha, beta, epsilon)
    require(is_whole(models) and models >= 1, "models", models, "a whole number, 1 or more")
    try:
        found = np.asarray(correlation)
    except ValueError:  # rows of several lengths
        raise UserError("correlation has rows of several lengths, but it must be a square matrix.") from None
    if jnp.issubdtype(found.dtype, jnp.floating) and not np.issubdtype(found.dtype, np.floating):
        found = found.astype(np.float32)  # of 16 bits
    square = found.ndim == 2 and found.shape[0] == found.shape[1] and found.shape[0] > 0
    require(square, "correlation", f"of shape {found.shape}", "a square matrix")
    require(np.issubdtype(found.dtype, np.floating), "correlation", found.dtype, "of floating-point numbers")
    count = len(found)
    require(count % models == 0, "correlation", f"of {count} features", f"of a multiple of {models}, the models")
    # A stretch of rows at a time: of a large matrix a copy is no small thing.
    stretches = [slice(start, start + 256) for start in range(0, count, 256)]
    finite = all(bool(np.isfinite(found[rows]).all()) for rows in stretches)
    require(finite, "correlation", "NaN or infinite in places", "finite")
    least = 1e-4 * max(1.0, *(float(np.abs(found[rows]).max()) for rows in stretches))
    apart = max(float(np.abs(found[rows] - found.T[rows]).max()) for rows in stretches)
    require(apart <= least, "correlation", "not symmetric", "symmetric")
    each, none = count // models, np.zeros((0, 2), np.int64)
    if method == "zip":
        joined, order = greedy.groups(found, models, alpha, beta)
    elif method == "permute":
        joined, order = _permuted(found, models), none
    elif method == "identity":
        joined, order = np.tile(np.arange(each), models), none
    else:
        joined, order = _paired(found, models), none
    return Match(group=_numbered(joined), order=order, models=models, epsilon=epsilon)


def check_settings(method: Any, alpha: Any, beta: Any, epsilon: Any) -> None:
    """Refuse a method that is none, or a number that is not possible.

    Raises:
      UserError: naming it.
    """
    check_choice(method, Method, "method")
    for name, value in (("alpha", alpha), ("beta", beta), ("epsilon", epsilon)):
        require(isinstance(value, int | float | np.number), name, value, "a number")
    require(-np.inf < alpha <= 1, "alpha", alpha, "at most 1, and finite")
    require(0 <= beta <= 1, "beta", beta, "between 0 and 1")
    require(0 <= epsilon < np.inf, "epsilon", epsilon, "0 or more, and finite")


def _permuted(correlation: np.ndarray, models: int) -> np.ndarray:
    each = len(correlation) // models
    found = [np.arange(each)]
    for m in range(1, models):
        rows, columns = linear_sum_assignment(correlation[:each, m * each : (m + 1) * each], maximize=True)
        partner = np.empty(each, np.int64)
        partner[columns] = rows
        found.append(partner)
    return np.concatenate(found)


def _paired(correlation: np.ndarray, models: int) -> np.ndarray:
    if models != 2:
        raise UserError(f"models is {models}, but it must be 2 for method 'optimal', which pairs features.")
    import networkx

    count = len(correlation)
    graph = networkx.Graph()
    above = np.triu_indices(count, 1)
    weights = correlation[above] - correlation[above].min() + 1.0  # all positive: then every feature has a partner
    graph.add_weighted_edges_from(zip(above[0].tolist(), above[1].tolist(), weights.tolist(), strict=True))
    found = np.empty(count, np.int64)
    for a, b in networkx.max_weight_matching(graph, maxcardinality=True):
        found[a] = found[b] = min(a, b)
    return found


def _numbered(joined: np.ndarray) -> np.ndarray:
    """Groups numbered from 0 in the order of their first members."""
    _, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[inverse]
