"""What moves and what stays: the leaves of each collection that are trained."""

from __future__ import annotations

from typing import Any

import jax

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
    if not leaves:
        raise UserError("optimizer.*.freeze leaves nothing to train, but at least one collection must be trained.")
    return partition.unflatten(leaves)


def _under(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)
