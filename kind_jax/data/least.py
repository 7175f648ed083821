"""A share of the records of every class, chosen by what the records are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int


def least(
    digests: Sequence[bytes], labels: Int[np.ndarray, " N"], share: float, *, leave: int = 1
) -> Bool[np.ndarray, " N"]:
    """A share of the records of every class, those with the least digests.

    So neither the machine nor a seed decides, few records change sides when others come or go, and a smaller share is
    part of a larger one. At least one of a class that has more than ``leave`` is taken.

    Args:
      leave: how many records of a class stay behind at least.
    """
    out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = sorted(np.flatnonzero(labels == label).tolist(), key=digests.__getitem__)
        out[rows[: min(max(1, round(share * len(rows))), len(rows) - leave)]] = True
    return out
