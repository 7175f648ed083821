"""Whether weights can be computed with: one that is NaN spoils every image, and nobody would know why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kind_jax import partition
from kind_jax.errors import UserError


def check(collections: Mapping[str, Any], origin: object) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
      UserError: naming ``origin``, the first array with such a value, and how many there are.
    """
    for name, leaf in partition.flatten(collections).items():
        array = np.asarray(leaf)
        # Both hand NaN on, and take no memory.
        if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
            wrong = int(np.sum(~np.isfinite(array)))
            raise UserError(
                f"{origin}: the weight '{name}' has {wrong} of {array.size} values that are NaN or infinite, but all "
                "must be finite."
            )


def largest(collections: Mapping[str, Any]) -> tuple[str, float]:
    """The array that has the weight of largest magnitude, and this magnitude."""
    sizes = {name: float(np.max(np.abs(leaf))) for name, leaf in partition.flatten(collections).items() if leaf.size}
    name = max(sizes, key=lambda n: sizes[n])
    return name, sizes[name]
