"""From the features of several models to merged ones, and back. n: merged features of a node, m: those of a model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Maps(NamedTuple):
    """Of one model: merged features are Σ ``merge`` f over the models, and its own are about ``unmerge`` f*."""

    merge: Float[np.ndarray, "n m"]
    unmerge: Float[np.ndarray, "m n"]


Nodes = tuple[int, ...]
"""The nodes whose features stand together on an axis: one, or heads and what is within them."""
