"""What moves and what stays: the leaves of each collection that are trained."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

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


def hold_null_row(collections: partition.Collections) -> partition.Collections:
    """The same, but no gradient reaches the null row of the label embedding.

    New classes can then join the model that they were learned beside: its unconditional branch is still the same.
    """
    params = partition.flatten(collections[partition.PARAMS])
    table = params.get("label_embed/table")
    if table is None:
        return collections
    params["label_embed/table"] = jnp.concatenate([table[:-1], jax.lax.stop_gradient(table[-1:])])
    return {**collections, partition.PARAMS: partition.unflatten(params)}


def _under(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)
