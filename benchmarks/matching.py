"""Greedy matching of features beside the algorithm as it is written down, which gives the same groups."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from harness import Contestant, Found, Ratio, Row, race
from record import Settings

from kind_jax.merging import match

WANTED, SECONDS = 1 / 20, 60.0


def measure(settings: Settings) -> Found:
    """1,024 features of two models, both ways; and the 6,144 of two ViT-B's MLPs, once, against a minute."""
    few, many = (128, 256) if settings.quick else (1024, 6144)
    small = correlation(few)
    ours = match(small, epsilon=0.0).group
    for delete in (False, True):
        assert np.array_equal(ours, scanned(small, delete=delete)), "the two ways give different groups"
    made = race(
        [
            Contestant(name="greedy", step=lambda: match(small, epsilon=0.0)),
            Contestant(name="scan", step=lambda: scanned(small)),
            Contestant(name="deleting scan", step=lambda: scanned(small, delete=True)),
        ],
        rounds=min(settings.rounds, 5), warmup=1,
    )  # fmt: skip
    large = correlation(many)
    start = time.perf_counter()
    match(large, epsilon=0.0)
    seconds = time.perf_counter() - start
    rows = (
        Row(what=f"{few} features: greedy / scan", ratio=made.ratio("greedy", "scan"), target=WANTED),
        Row(what=f"{few} features: greedy / deleting scan", ratio=made.ratio("greedy", "deleting scan"), target=WANTED),
        Row(what=f"{many} features: greedy / a minute", ratio=Ratio.exact(seconds / SECONDS), target=1.0),
    )
    details: dict[str, Any] = made.details() | {f"{many} features": {"seconds": seconds}}
    return Found(rows=rows, sizes={"features": [few, many]}, details=details)


def correlation(features: int) -> np.ndarray:
    """Of features that share a few factors."""
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((2048, 64)) @ rng.standard_normal((64, features))
    seen = np.maximum(factors + 4 * rng.standard_normal((2048, features)), 0)
    return np.corrcoef(seen.T).astype(np.float32)


def scanned(found: np.ndarray, alpha: float = 0.3, beta: float = 0.125, *, delete: bool = False) -> np.ndarray:
    """The algorithm as it is written down: the greatest similarity of all groups that are left, for every merge anew.

    ``delete``: whether a group that was taken in is deleted from the matrix, as in the published code; or else the rows
    and columns of those that are left are picked out each time.
    """
    values = (found + found.T) / 2
    each = len(values) // 2
    np.fill_diagonal(values, -np.inf)
    first, left = np.arange(len(values)), np.arange(len(values))  # of the matrix, or of the features
    budget = [int((each // 2) * beta + 1e-4)] * 2
    while len(left) > each:
        seen = values if delete else values[np.ix_(left, left)]
        a, b = sorted(int(k) for k in np.unravel_index(int(np.argmax(seen)), seen.shape))
        i, j = (a, b) if delete else (left[a], left[b])
        owners = left // each
        first[first == left[b]] = left[a]
        row = (np.float32(alpha) * np.minimum(values[i], values[j])).astype(values.dtype)
        row[i] = -np.inf
        values[i], values[:, i] = row, row
        if owners[a] == owners[b]:
            budget[owners[a]] -= 1
            if budget[owners[a]] <= 0:
                own = np.flatnonzero(owners == owners[a]) if delete else left[owners == owners[a]]
                values[np.ix_(own, own)] = -np.inf
        if delete:
            values = np.delete(np.delete(values, b, axis=0), b, axis=1)
        left = np.delete(left, b)
    return np.unique(first, return_inverse=True)[1]
