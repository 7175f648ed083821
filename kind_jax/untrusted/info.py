"""What an array claims to be."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Info(NamedTuple):
    """Shape, and a name of the dtype that NumPy knows, like float32."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def is_shape(found: object) -> bool:
    """Whether ``found`` is a list or tuple of as many sizes as NumPy's arrays may have."""
    sizes = found if isinstance(found, list | tuple) else None
    return sizes is not None and len(sizes) <= 32 and all(type(n) is int and 0 <= n < 2**62 for n in sizes)
