"""Dense parameters of several models as those of one: what cannot be different for different classes is averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from kind_jax.deploy.groups import TABLE
from kind_jax.merging.sources import Source
from kind_jax.partition import flatten, unflatten


def mean_and_difference(
    arrays: Sequence[Float[np.ndarray, "*shape"]], share: Float[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, "*shape"], float]:
    """The weighted mean, and how far the arrays are from it.

    Returns:
      Their mean in float32, and the root of the mean square of their differences from it, relative to that of the
      arrays: 0 where all agree, 1 where they cancel out.
    """
    wide = [np.asarray(a, np.float64) for a in arrays]
    if all(np.array_equal(a, wide[0]) for a in wide[1:]):  # to the bit, which a sum of shares would not be
        return np.asarray(arrays[0], np.float32), 0.0
    mean = np.sum([p * a for p, a in zip(share, wide, strict=True)], axis=0)

    def square(about: np.ndarray | float) -> float:
        return sum(p * float(np.sum((a - about) ** 2)) for p, a in zip(share, wide, strict=True))

    return mean.astype(np.float32), math.sqrt(square(mean) / (square(0.0) or 1.0))


def outside(sources: Sequence[Source], share: Float[np.ndarray, " N"]) -> tuple[dict[str, Any], dict[str, float]]:
    """Everything outside the blocks.

    Args:
      share: of each model, which sum to 1.

    Returns:
      The dense parameters, with the label embedding's rows of the classes of all models and the mean of their null
      rows; and the difference of each leaf (:func:`mean_and_difference`), of a label embedding that of the null row.
    """
    trees = [_without_blocks(source.params) for source in sources]
    found, differences = {}, {}
    for path in trees[0]:
        arrays = [tree[path] for tree in trees]
        if path != TABLE:
            found[path], differences[path] = mean_and_difference(arrays, share)
            continue
        null, differences[path] = mean_and_difference([a[-1] for a in arrays], share)
        rows = [a[list(s.bundle.served)] for a, s in zip(arrays, sources, strict=True)]
        found[path] = np.concatenate([*rows, null[None]])
    return unflatten(found), differences


def _without_blocks(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    leaves = flatten({name: tree for name, tree in params.items() if name != "blocks"})
    return {path: np.asarray(leaf) for path, leaf in leaves.items()}
