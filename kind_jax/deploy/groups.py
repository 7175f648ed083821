"""Growing and shrinking: groups of classes join and leave a model whose learngenes stay as they are.

Pure functions on bundles. A class keeps its number for good: shrinking leaves the numbers of the others alone, and
growing appends. No array of a group that stays is touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from kind_jax import model, partition
from kind_jax.classes import ClassList, numbers_of
from kind_jax.config.check import check_seed, require
from kind_jax.config.roles import JOIN, compare
from kind_jax.deploy.bundle import Bundle, check_bundle
from kind_jax.errors import UserError
from kind_jax.partition import LEARNGENES, PARAMS, TAILORS, fingerprint
from kind_jax.untrusted.text import check_names

TABLE = "label_embed/table"


def served(bundle: Bundle) -> tuple[int, ...]:
    """The classes whose tailors are aboard."""
    return bundle.served


def drop(bundle: Bundle, classes: ClassList) -> Bundle:
    """The bundle without the tailors of ``classes`` (numbers or names); the others keep their numbers and exact arrays.

    Raises:
      UserError: a class that is not aboard, that shares its tailors with one that stays, or the last one; a model
        without gated tailors.
    """
    _check_gated(bundle, "shrink")
    classes = numbers_of(classes, bundle.class_names)
    bundle.gates.check(classes)
    group_of = bundle.config.model.group_of_class
    gone, staying = {group_of[c] for c in classes}, set(served(bundle)) - set(classes)
    for c in sorted(staying):
        if group_of[c] in gone:
            mate = next(d for d in classes if group_of[d] == group_of[c])
            raise UserError(
                f"class {mate} is to be dropped, but it shares its tailors with class {c}; drop both or none."
            )
    if not staying:
        raise UserError(f"classes to be dropped are {sorted(classes)}, but at least one class must stay.")
    rows = [row for row, group in enumerate(bundle.groups) if group not in gone]
    return dataclasses.replace(
        bundle,
        collections={**bundle.collections, TAILORS: partition.select(bundle.collections[TAILORS], rows)},
        groups=tuple(bundle.groups[row] for row in rows),
    )


def grow(bundle: Bundle, other: Bundle) -> Bundle:
    """The bundle with every class that ``other`` serves added behind its own.

    The two must share learngenes and dense parameters bit by bit, as models do that were trained from one source with
    both frozen. Of a label embedding only the null row must agree: the rows of the new classes go before it.

    Raises:
      UserError: naming the first thing that differs (a setting, the learngenes' hashes, an array), a class name that
        both have, or a model that cannot grow.
    """
    for name, each in (("bundle", bundle), ("other", other)):
        _check_gated(each, "grow", name)
    _check_settings(bundle, other)
    hashes = [fingerprint(b.collections[LEARNGENES]) for b in (bundle, other)]
    if hashes[0] != hashes[1]:
        raise UserError(
            f"the learngenes of {other.origin} have SHA-256 {hashes[1]}, but they must be those of {bundle.origin}, "
            f"{hashes[0]}: tailors fit only the learngenes that they were trained with."
        )
    _check_params(bundle, other)
    classes = served(other)
    group_of = other.config.model.group_of_class
    rows = [other.groups.index(g) for g in other.groups]
    group_rows = [other.groups.index(group_of[c]) for c in classes]
    return _append(
        bundle,
        names=[other.class_names[c] for c in classes],
        group_rows=group_rows,
        bank=partition.select(other.collections[TAILORS], rows),
        table=_rows_of_table(other, classes),
    )


def grow_fresh(bundle: Bundle, class_names: Sequence[str], seed: int) -> Bundle:
    """The bundle with new classes, each a group of its own, whose tailors are drawn as at initialisation.

    Raises:
      UserError: a name that is taken or given twice, none at all, a seed that is none, or a model that cannot grow.
    """
    _check_gated(bundle, "grow")
    check_seed(seed)
    listed = isinstance(class_names, Sequence) and not isinstance(class_names, str)
    strings = listed and all(isinstance(name, str) for name in class_names)
    require(strings, "class_names", class_names, 'a list of names, like ["cat", "dog"]')
    check_names(class_names, "The model to be grown")
    if not class_names:
        raise UserError("no class names are given, but growing needs at least one.")
    settings = bundle.config.model
    factor = dataclasses.replace(settings.factor, rank=None)
    new = dataclasses.replace(settings, num_classes=len(class_names), groups=None, factor=factor)
    fresh = model.init(new, seed)
    flat = partition.flatten(fresh[PARAMS])
    return _append(
        bundle,
        names=class_names,
        group_rows=list(range(len(class_names))),
        bank=fresh[TAILORS],
        table=np.asarray(flat[TABLE])[:-1] if TABLE in flat else None,
    )


def _append(
    bundle: Bundle, *, names: Sequence[str], group_rows: Sequence[int], bank: Mapping[str, Any], table: Any
) -> Bundle:
    """New classes whose groups are rows of ``bank``, with their rows of the label embedding."""
    for i, name in enumerate(names):
        if name in bundle.class_names or name in names[:i]:
            raise UserError(
                f"a class to be added is named {name!r}, but a class of that name exists already "
                "(a class that was dropped keeps its number and name)."
            )
    settings = bundle.config.model
    groups = settings.group_of_class + tuple(settings.num_groups + row for row in group_rows)
    count = len(groups)
    config = dataclasses.replace(
        settings,
        num_classes=count,
        groups=None if groups == tuple(range(count)) else groups,
        factor=dataclasses.replace(settings.factor, rank=None),  # a bound on all groups together would not hold
    )
    params = bundle.collections[PARAMS]
    if table is not None:
        flat = partition.flatten(params)
        old = np.asarray(flat[TABLE])
        params = partition.unflatten({**flat, TABLE: np.concatenate([old[:-1], np.asarray(table), old[-1:]])})
    tailors = jax.tree.map(
        lambda a, b: np.concatenate([np.asarray(a), np.asarray(b)]), dict(bundle.collections[TAILORS]), dict(bank)
    )
    rows = partition.groups_in(bank)
    return dataclasses.replace(
        bundle,
        config=dataclasses.replace(bundle.config, model=config),
        collections={**bundle.collections, TAILORS: tailors, PARAMS: params},
        groups=bundle.groups + tuple(settings.num_groups + row for row in range(rows)),
        class_names=(*bundle.class_names, *names),
    )


def _rows_of_table(bundle: Bundle, classes: Sequence[int]) -> np.ndarray | None:
    table = partition.flatten(bundle.collections[PARAMS]).get(TABLE)
    return None if table is None else np.asarray(table)[list(classes)]


def _check_gated(bundle: Bundle, verb: str, name: str = "bundle") -> None:
    check_bundle(bundle, name)
    composed = bundle.composition is not None or bundle.config.model.factor.ranks is not None
    if composed and (verb == "grow" or not bundle.collections[TAILORS]):
        raise UserError(
            f"{bundle.origin} is a composed model, which cannot {verb}: {verb} its source, then compose again."
        )
    if not bundle.collections[TAILORS]:
        raise UserError(f"{bundle.origin} has no tailors, so it cannot {verb}.")


def _check_settings(bundle: Bundle, other: Bundle) -> None:
    for name, wanted, found in compare(bundle.config, other.config, JOIN):
        raise UserError(f"{name} of {other.origin} is {found!r}, but it must be {wanted!r}, as in {bundle.origin}.")


def _null_row(params: Mapping[str, Any]) -> bytes:
    return np.asarray(params[TABLE])[-1].tobytes()


def _check_params(bundle: Bundle, other: Bundle) -> None:
    ours, theirs = (partition.flatten(b.collections[PARAMS]) for b in (bundle, other))
    if TABLE in ours and _null_row(ours) != _null_row(theirs):
        raise UserError(
            f"the null row of '{TABLE}' of {other.origin} is not that of {bundle.origin}, so their unconditional "
            "branches differ: models can be joined only if that row was not trained (older transfers moved it where "
            "optimizer.params.weight_decay was not 0; they must be trained again)."
        )
    for path, leaf in ours.items():
        if path != TABLE and np.asarray(leaf).tobytes() != np.asarray(theirs[path]).tobytes():
            raise UserError(
                f"the dense parameter '{path}' of {other.origin} is not that of {bundle.origin}: models can be joined "
                "only if they were trained with learngenes and dense parameters frozen."
            )
