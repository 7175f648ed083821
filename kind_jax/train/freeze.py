"""What moves and what stays: the leaves of each collection that are trained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import partition
from kind_jax.config import OptimizerConfig
from kind_jax.config.training import CollectionConfig
from kind_jax.errors import UserError
from kind_jax.partition import ADAPTERS, COLLECTIONS, MOVED, TAILORS

FROZEN = "frozen"
SETTLED = (*COLLECTIONS, ADAPTERS)  # collections that have settings of their own in an OptimizerConfig
OTHER = "other"


class Manner(NamedTuple):
    """How a leaf is trained.

    Attributes:
      collection: whose settings hold where the rule says nothing; ``other`` for one that has none.
      rule: number of the rule that matches, None for none.
    """

    collection: str
    rule: int | None

    def setting(self, config: OptimizerConfig, name: str) -> Any:
        """``learning_rate``, ``weight_decay`` or ``freeze`` of the leaf."""
        of_rule = None if self.rule is None else getattr(config.rules[self.rule], name)
        if of_rule is not None:
            return of_rule
        return getattr(getattr(config, self.collection, CollectionConfig()), name)

    def __str__(self) -> str:
        return self.collection if self.rule is None else f"{self.collection} rule {self.rule}"


def manner(config: OptimizerConfig, path: str) -> Manner:
    """How the leaf of a path, like ``params/head/bias``, is trained.

    Raises:
      UserError: nothing says so.
    """
    collection = path.partition("/")[0]
    rule = next((i for i, rule in enumerate(config.rules) if re.fullmatch(rule.path, path)), None)
    if rule is None and collection not in SETTLED:
        raise UserError(
            f"optimizer.rules has none for {path!r}, but a leaf of the collection {collection!r} must be matched by "
            "one."
        )
    return Manner(collection if collection in SETTLED else OTHER, rule)


def manners(config: OptimizerConfig) -> list[Manner]:
    """All that :func:`manner` can say."""
    found = [Manner(name, None) for name in SETTLED]
    return found + [Manner(name, i) for i in range(len(config.rules)) for name in (*SETTLED, OTHER)]


def check(config: OptimizerConfig, collections: partition.Collections) -> None:
    """Refuse settings that a whole model cannot be trained with.

    Raises:
      UserError: a rule decides about no leaf, a leaf of a collection without settings of its own has no rule, or
        tailors are to be lazy under SGD.
    """
    paths = [path for path in partition.flatten(collections) if path.partition("/")[0] not in MOVED]
    used = {manner(config, path).rule for path in paths}
    for i, rule in enumerate(config.rules):
        if i not in used:
            known = any(re.fullmatch(rule.path, path) for path in paths)
            why = "rules before it match the same leaves" if known else f"there are {', '.join(paths[:3])}, ..."
            raise UserError(f"optimizer.rules has {rule.path!r}, but it must be the first to match a leaf; {why}.")
    if config.method == "sgd" and config.lazy_tailors and collections.get(TAILORS):
        raise UserError(
            f"optimizer.lazy_tailors is True, but it must be False for optimizer.method {config.method!r}, which "
            "does not leave the tailors of absent groups alone."
        )


def labels(config: OptimizerConfig, collections: partition.Collections) -> Any:
    """For every leaf the name of how it is trained (:class:`Manner`), or ``frozen``; statistics are never trained."""

    def of(path: tuple[Any, ...], leaf: Any) -> str:
        del leaf
        name, rest = path[0].key, "/".join(str(key.key) for key in path[1:])
        if name in MOVED:
            return FROZEN
        found = manner(config, f"{name}/{rest}")
        thawed = (found.rule is None or config.rules[found.rule].freeze is None) and name in SETTLED
        frozen = found.setting(config, "freeze") and not (thawed and _under(rest, getattr(config, name).thaw))
        return FROZEN if frozen else str(found)

    return jax.tree_util.tree_map_with_path(of, collections)


def moving(config: OptimizerConfig, collections: partition.Collections) -> partition.Collections:
    """Only the leaves that are trained; a collection without any is absent.

    Raises:
      UserError: a ``thaw`` names nothing in its collection, a leaf is neither of a collection
        with settings nor matched by a rule, or nothing at all is trained.
    """
    for name, tree in collections.items():
        if name not in SETTLED:
            continue
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
