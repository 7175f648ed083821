"""Collections: a model as nested dictionaries of arrays, and the pure functions that take it apart.

A model is three dictionaries: ``learngenes`` (components that every class shares), ``tailors`` (components of a group
of classes, the group on the leading axis) and ``params`` (everything dense); and ``stats``, where it has statistics
that move without gradients, like those of BatchNorm. Training, sharding, checkpoints and every verb after training work
on these; the NNX module exists only inside a traced function. A run may carry more beside its model, which no artifact
holds: ``projectors``, which train, and ``memory``, which moves without gradients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from kind_jax.config.check import is_whole
from kind_jax.errors import UserError
from kind_jax.nn.variables import Learngene, Tailor
from kind_jax.untrusted.text import short

LEARNGENES, TAILORS, PARAMS = COLLECTIONS = ("learngenes", "tailors", "params")
STATS = "stats"  # only of models that have some; never differentiated
ADAPTERS = "adapters"  # of models that are being adapted: see kind_jax.adapters
PROJECTORS, MEMORY = "projectors", "memory"  # of runs that distil: see kind_jax.distillation
NAMES = (*COLLECTIONS, STATS, ADAPTERS, PROJECTORS, MEMORY)
MOVED = (STATS, MEMORY)  # collections that steps move without gradients

# Which Variables a collection holds: the first that fits takes a Variable, so special types come before nnx.Param.
_TYPES = {LEARNGENES: Learngene, TAILORS: Tailor, PARAMS: nnx.Param, STATS: nnx.BatchStat}

Collections = dict[str, Any]
"""{'learngenes': tree, 'tailors': tree, 'params': tree}, perhaps 'stats'; trees are nested dicts of arrays."""


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Collections]:
    """Take a module apart into its definition and its collections; every Variable lands in exactly one."""
    graphdef, *states = nnx.split(module, *_TYPES.values())
    found = {name: nnx.to_pure_dict(state) for name, state in zip(_TYPES, states, strict=True)}
    return graphdef, {name: tree for name, tree in found.items() if tree or name in COLLECTIONS}


def join(graphdef: nnx.GraphDef, collections: Collections) -> Any:
    """The inverse of :func:`split`; call it inside the traced function that uses the module."""
    return nnx.merge(graphdef, *(collections[name] for name in _TYPES if name in collections))


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by slash-separated path, in sorted order."""
    return dict(sorted(traverse_util.flatten_dict(dict(tree), sep="/").items()))


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`flatten`."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def fingerprint(tree: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of a tree of arrays: its paths in sorted order, their shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for path, leaf in flatten(tree).items():
        array = np.ascontiguousarray(leaf)
        # NUL ends the header: no path contains one, so no two trees give the same stream.
        digest.update(f"{path} {tuple(leaf.shape)} {array.dtype.name}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def overlay(base: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the leaves of ``part``, which may lack most of them, in their places."""
    return {name: {} for name in base} | unflatten({**flatten(base), **flatten(part)})


def groups_in(tailors: Mapping[str, Any]) -> int:
    """Rows in a tailor bank; 0 for a model without tailors.

    Raises:
      UserError: leaves disagree on the number of groups.
    """
    rows = {path: leaf.shape[0] for path, leaf in flatten(tailors).items()}
    if len(set(rows.values())) > 1:
        raise UserError(
            f"tailors disagree on the number of groups: {rows}; all leaves must have the same leading axis."
        )
    return next(iter(rows.values()), 0)


def select(tailors: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The bank with only ``rows``, in that order.

    Raises:
      UserError: no bank of tailors, or a row that it does not have.
    """
    check_trees(tailors, what="tailors")
    count, index = groups_in(tailors), _listed(rows, "rows", "numbers of tailor rows")
    for row in index:
        if not is_whole(row) or not 0 <= row < count:
            raise UserError(f"tailor row is {short(row)}, but it must be between 0 and {count - 1}.")
    return jax.tree.map(lambda a: a[jnp.asarray(index, jnp.int32)], dict(tailors))


def concatenate(banks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several banks of one architecture as one, rows in order.

    Raises:
      UserError: no banks of tailors, or of different architectures.
    """
    banks = _listed(banks, "banks", "banks of tailors")
    if not banks:
        raise UserError("banks are empty, but there must be one or more.")
    check_trees(*banks, what="a bank of tailors")
    _check_alike(banks[0], *banks[1:], what="tailor banks", skip_leading=True)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(dict(b) for b in banks))


def transplant(target: Collections, source: Collections, names: Sequence[str] = (LEARNGENES,)) -> Collections:
    """``target`` with the collections ``names`` replaced by ``source``'s, which must have the same leaves.

    Raises:
      UserError: a leaf is missing, extra, or has another shape or dtype; the leaf is named. No collections, or a name
        that they lack.
    """
    names = _listed(names, "names", "names of collections")
    for what, found in (("target", target), ("source", source)):
        check_trees(found, what=what)
        if lacking := [name for name in names if not isinstance(name, str) or name not in found]:
            raise UserError(f"names has {short(lacking[0])}, but {what} has {', '.join(map(repr, found))} alone.")
    for name in names:
        check_trees(target[name], source[name], what=name)
        _check_alike(target[name], source[name], what=name)
    return {**target, **{name: source[name] for name in names}}


def _listed(values: Any, name: str, wanted: str) -> list[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable) or getattr(values, "ndim", 1) < 1:
        raise UserError(f"{name} is {short(values)}, but it must be a list of {wanted}.")
    return list(values)


def check_trees(*trees: Any, what: str) -> None:
    """Refuse what is no nested dictionary of arrays.

    Raises:
      UserError: naming ``what``.
    """
    for tree in trees:
        arrays = isinstance(tree, Mapping) and all(hasattr(a, "shape") for a in jax.tree.leaves(dict(tree)))
        if not arrays or not all(isinstance(name, str) for name in tree):
            raise UserError(f"{what} is {short(tree)}, but it must be a nested dictionary of arrays.")


def check_like(found: Mapping[str, Any], wanted: Mapping[str, Any], origin: str) -> None:
    """Refuse a tree whose leaves differ from ``wanted`` (arrays or ShapeDtypeStructs) in presence, shape or dtype.

    Raises:
      UserError: naming ``origin``, the first leaf that differs, and what was found and wanted.
    """
    have, want = flatten(found), flatten(wanted)
    for path in want:
        if path not in have:
            raise UserError(f"{origin} lacks the array '{path}' of shape {tuple(want[path].shape)}.")
    for path, leaf in have.items():
        if path not in want:
            raise UserError(f"{origin} holds the array '{path}', which this model does not have.")
        if tuple(leaf.shape) != tuple(want[path].shape):
            raise UserError(
                f"{origin}: '{path}' has shape {tuple(leaf.shape)}, but this model needs {tuple(want[path].shape)}."
            )
        if leaf.dtype != want[path].dtype:
            raise UserError(f"{origin}: '{path}' has dtype {leaf.dtype}, but this model needs {want[path].dtype}.")


def _check_alike(first: Mapping[str, Any], *others: Mapping[str, Any], what: str, skip_leading: bool = False) -> None:
    def row(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape[1:] if skip_leading else leaf.shape, leaf.dtype)

    for other in others:
        check_like(jax.tree.map(row, dict(other)), jax.tree.map(row, dict(first)), f"the source's {what}")


def weights_sha256(collections: Collections) -> str:
    """SHA-256 over names, dtypes, shapes and values of all arrays."""
    digest = hashlib.sha256()
    for collection, tree in sorted(collections.items()):
        for name, leaf in sorted(flatten(tree).items()):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{collection}/{name} {array.dtype.name} {array.shape}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
