"""What moves and what stays: the leaves of each collection that are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import partition
from kind_jax.config import OptimizerConfig
from kind_jax.errors import UserError

FROZEN = "frozen"


def labels(config: OptimizerConfig, collections: partition.Collections) -> Any:
    """For every leaf the name of its collection, or ``frozen``."""

    def of(path: tuple[Any, ...], leaf: Any) -> str:
        del leaf
        name, rest = path[0].key, "/".join(str(key.key) for key in path[1:])
        settings = getattr(config, name)
        return FROZEN if settings.freeze and not _under(rest, settings.thaw) else name

    return jax.tree_util.tree_map_with_path(of, collections)


def moving(config: OptimizerConfig, collections: partition.Collections) -> partition.Collections:
    """Only the leaves that are trained; a collection without any is absent.

    Raises:
      UserError: a ``thaw`` names nothing in its collection, or nothing at all is trained.
    """
    for name, tree in collections.items():
        paths = partition.flatten(tree)
        for prefix in getattr(config, name).thaw:
            if not any(_under(path, (prefix,)) for path in paths):
                there = sorted({path.split("/")[0] for path in paths})
                raise UserError(
                    f"optimizer.{name}.thaw names {prefix!r}, but it must begin the path of a leaf; there are {there}."
                )
    kept = labels(config, collections)
    names = partition.flatten(kept)
    leaves = {path: leaf for path, leaf in partition.flatten(collections).items() if names[path] != FROZEN}
    if not sum(leaf.size for leaf in leaves.values()):
        raise UserError("optimizer.*.freeze leaves nothing to train, but at least one collection must be trained.")
    return partition.unflatten(leaves)


def hold(
    held: Mapping[str, tuple[int, ...]], new: partition.Collections, old: partition.Collections
) -> partition.Collections:
    """``new`` with the rows ``held`` of ``old``, to the bit, whatever has moved them; an absent leaf needs nothing."""
    leaves, source = partition.flatten(new), partition.flatten(old)
    present = [path for path in held if path in leaves]
    if not present:
        return new
    for path in present:
        leaf = leaves[path]
        rows = np.zeros(leaf.shape[0], bool)
        rows[list(held[path])] = True
        leaves[path] = jnp.where(rows.reshape(-1, *(1,) * (leaf.ndim - 1)), source[path], leaf)
    return {name: {} for name in new} | partition.unflatten(leaves)


def _under(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)
