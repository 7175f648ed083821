"""The weights that a transfer starts from."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import adapters, model, partition
from kind_jax.config import Config
from kind_jax.deploy.bundle import Bundle
from kind_jax.partition import LEARNGENES, PARAMS, TAILORS
from kind_jax.transferring.nearest import nearest_groups

_ROWS = "label_embed/table"


def start(config: Config, source: Bundle) -> partition.Collections:
    """Weights of step 0 for a config that :func:`kind_jax.transferring.plan.plan` completed.

    Raises:
      UserError: an array of the source is missing, extra, or has another shape or dtype than the target's.
    """
    fresh = model.init(config.model, config.train.seed)
    if config.transfer.method == "layers":
        return _inherit_blocks(config, fresh, source.collections)
    params = _with_new_rows(fresh[PARAMS], source.collections[PARAMS])
    collections = partition.transplant(fresh, {**source.collections, PARAMS: params}, (LEARNGENES, PARAMS))
    collections = {**collections, TAILORS: _tailors(config, fresh[TAILORS], source)}
    if config.transfer.method in adapters.METHODS:
        key = jax.random.key(config.train.seed)
        collections = adapters.attach(config.transfer, jax.tree.map(jnp.asarray, collections), key)
    return collections


def _with_new_rows(fresh: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """The source's dense parameters with rows for the new classes; the null row stays."""
    leaves, new = partition.flatten(old), partition.flatten(fresh)
    if _ROWS in new and _ROWS in leaves:
        leaves[_ROWS] = np.concatenate([np.asarray(new[_ROWS])[:-1], np.asarray(leaves[_ROWS])[-1:]])
    return partition.unflatten(leaves)


def _inherit_blocks(
    config: Config, fresh: partition.Collections, source: partition.Collections
) -> partition.Collections:
    """``fresh`` with some blocks' learngenes and dense parameters of ``source``; tailors know the old classes."""
    layers = list(config.transfer.layers)

    def inherit(new: Any, old: Any) -> np.ndarray:
        new = np.array(new)
        new[layers] = np.asarray(old)[layers]
        return new

    def blocks(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
        if config.model.factor.ranks is None:  # stacked: the depth axis comes first
            return jax.tree.map(inherit, new, old)
        return {**new, **{str(i): old[str(i)] for i in layers if str(i) in old}}

    names = [name for name in (LEARNGENES, PARAMS) if "blocks" in fresh[name]]
    for name in names:
        partition.check_like(source[name]["blocks"], fresh[name]["blocks"], f"the source's {name}")
    return fresh | {
        name: {**fresh[name], "blocks": blocks(fresh[name]["blocks"], source[name]["blocks"])} for name in names
    }


def _tailors(config: Config, fresh: dict[str, Any], source: Bundle) -> dict[str, Any]:
    how, old = config.transfer.tailors, source.collections[TAILORS]
    if not fresh or how == "random":
        return fresh
    if how == "silent":
        leaves = partition.flatten(fresh)
        return partition.unflatten(
            {path: np.zeros_like(leaf) if path.endswith("/s_t") else leaf for path, leaf in leaves.items()}
        )
    groups = config.model.num_groups
    if how == "mean":
        rows = jax.tree.map(lambda a: np.broadcast_to(np.mean(a, axis=0), (groups, *a.shape[1:])).copy(), old)
    else:
        rows = partition.select(old, nearest_groups(config, source))
    partition.check_like(rows, fresh, "the source's tailors")
    return rows
