"""Where other programs' arrays lie in our collections, and how each is laid out on either side.

PyTorch's linear layers are [d_out, d_in] and its convolutions [d_out, d_in, row, column]; ours are [d_in, d_out] and
[row, column, d_in, d_out], and the blocks of a transformer are stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from kind_jax import model, partition
from kind_jax.interchange.names import StateDict

Leaf = Float[np.ndarray, "..."]


class Layout(NamedTuple):
    """Views of one array: of ours as theirs, and of theirs as ours."""

    theirs: Callable[[Leaf], Leaf]
    ours: Callable[[Leaf], Leaf]


SAME = Layout(lambda a: a, lambda a: a)
DENSE = Layout(lambda a: a.T, lambda a: a.T)
CONV = Layout(lambda a: a.transpose(3, 2, 0, 1), lambda a: a.transpose(2, 3, 1, 0))


def leading(axes: int) -> Layout:
    """Their array has this many axes of 1 in front."""
    return Layout(lambda a: a[(None,) * axes], lambda a: a.reshape(a.shape[axes:]))


def patches(side: int) -> Layout:
    """Their convolution over patches is our linear layer over patches flattened as (row, column, channel)."""
    return Layout(
        lambda a: CONV.theirs(a.reshape(side, side, -1, a.shape[1])), lambda a: CONV.ours(a).reshape(-1, a.shape[0])
    )


class Place(NamedTuple):
    """Where one of their arrays lies: a path in our collections, and which block of it, if blocks are stacked there."""

    path: str
    layout: Layout
    block: int | None = None


Places = Mapping[str, Place]
"""Places by their name; every leaf of a model is in some place."""


def to_state_dict(places: Places, collections: Mapping[str, Any]) -> StateDict:
    """Our arrays by their names, in their layouts; views where possible."""
    leaves = {path: np.asarray(a) for path, a in partition.flatten(collections).items()}
    found: StateDict = {}
    for name, (path, layout, block) in places.items():
        found[name] = layout.theirs(leaves[path] if block is None else leaves[path][block])
    return found


def to_collections(places: Places, found: Mapping[str, Leaf]) -> partition.Collections:
    """The inverse of :func:`to_state_dict`, of arrays with the shapes of :func:`shapes`."""
    parts: dict[str, list[Leaf]] = {}
    stacked: dict[str, bool] = {}
    for name, (path, layout, block) in places.items():  # the blocks of one path come in order
        parts.setdefault(path, []).append(layout.ours(found[name]))
        stacked[path] = block is not None
    leaves = {path: np.stack(a) if stacked[path] else np.asarray(a[0], order="C") for path, a in parts.items()}
    return {name: {} for name in partition.COLLECTIONS} | partition.unflatten(leaves)


def shapes(places: Places, config: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state dict of a model; takes no memory.

    Args:
      config: the settings of the network.
    """
    leaves = partition.flatten(model.definition(config)[1])
    empty = {path: np.broadcast_to(np.float32(0), a.shape) for path, a in leaves.items()}
    return {name: a.shape for name, a in to_state_dict(places, partition.unflatten(empty)).items()}
