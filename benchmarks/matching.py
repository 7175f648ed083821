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
    ours, theirs = match(small, epsilon=0.0).group, scanned(small)
    assert np.array_equal(ours, theirs), "the two ways give different groups"
    made = race(
        [
            Contestant(name="greedy", step=lambda: match(small, epsilon=0.0)),
            Contestant(name="scan", step=lambda: scanned(small)),
        ],
        rounds=min(settings.rounds, 5), warmup=1,
    )  # fmt: skip
    large = correlation(many)
    start = time.perf_counter()
    match(large, epsilon=0.0)
    seconds = time.perf_counter() - start
    rows = (
        Row(what=f"{few} features: greedy / scan", ratio=made.ratio("greedy", "scan"), target=WANTED),
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


def scanned(found: np.ndarray, alpha: float = 0.3, beta: float = 0.125) -> np.ndarray:
    """The algorithm as it is written down, and as the published code has it: the greatest of all similarities for every
    merge anew, and a group that was taken in is deleted from the matrix."""
    values = (found + found.T) / 2
    count, each = len(values), len(values) // 2
    np.fill_diagonal(values, -np.inf)
    owner, first, left = np.arange(count) // each, np.arange(count), np.arange(count)
    budget = [int((each // 2) * beta + 1e-4)] * 2
    for _ in range(count - each):
        i, j = sorted(int(k) for k in np.unravel_index(int(np.argmax(values)), values.shape))
        same = owner[i] == owner[j]
        first[first == left[j]] = left[i]
        row = (np.float32(alpha) * np.minimum(values[i], values[j])).astype(values.dtype)
        row[i] = -np.inf
        values[i], values[:, i] = row, row
        values = np.delete(np.delete(values, j, axis=0), j, axis=1)
        owner, left = np.delete(owner, j), np.delete(left, j)
        if same:
            budget[owner[i]] -= 1
            if budget[owner[i]] <= 0:
                own = np.flatnonzero(owner == owner[i])
                values[np.ix_(own, own)] = -np.inf
    _, numbered = np.unique(first, return_inverse=True)
    return numbered
