"""Telling weights apart: two models share their learngenes if and only if the fingerprints are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from kind_jax import partition


def fingerprint(tree: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of a tree of arrays: its paths in sorted order, their shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for path, leaf in partition.flatten(tree).items():
        array = np.ascontiguousarray(leaf)
        # NUL ends the header: no path contains one, so no two trees give the same stream.
        digest.update(f"{path} {tuple(leaf.shape)} {array.dtype.name}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
