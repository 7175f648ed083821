"""Merges and unmerges carried through the weights: W* = Σ_m M_m W_m U_m, b* = Σ_m M_m b_m (Stoica et al. 2024, 4.1).

N: models. All sums are in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kind_jax.errors import UserError
from kind_jax.merging.maps import Maps, Nodes
from kind_jax.merging.table import Axis, Part, Table

Leaves = Mapping[str, Any]
Maybe = dict[Nodes, tuple[Maps, ...]]


def merged(
    table: Table, maps: Maybe, models: Sequence[Leaves], only: Callable[[str], bool] | None = None
) -> dict[str, np.ndarray]:
    """The weights that all models become.

    What no merge writes is averaged. A node without maps keeps its features as they are numbered.

    Args:
      models: the leaves of each, by path.
      only: which of the leaves.

    Raises:
      UserError: a leaf that the table does not know, or factored weights.
    """
    found = {}
    for name, axes in _known(table, models[0], only):
        shapes = {np.shape(model[name]) for model in models}
        if len(shapes) > 1:
            raise UserError(f"the models' {name} has the shapes {sorted(shapes)}, but must have one in all of them.")
        if any(axis.role == "inner" for axis in axes):
            raise UserError(
                f"{name} is a factor of a weight, but merging needs the weight itself: compose the model first."
            )
        written = sum(any(part.nodes in maps for part in axis.parts) for axis in axes if axis.role == "written")
        total = 0.0
        for m, model in enumerate(models):
            total = total + _mapped(model[name], axes, maps, m, lambda pair: pair.merge, 1 / len(models))
        # Each merge on a written axis averages once.
        total = total * float(len(models)) ** (written - 1)
        found[name] = np.asarray(total, np.asarray(models[0][name]).dtype)
    return found


def adapted(
    table: Table, maps: Maybe, model: Leaves, index: int, only: Callable[[str], bool] | None = None
) -> dict[str, np.ndarray]:
    """The weights of one model that go on alone behind merged ones: they read merged features, and write into streams
    that merged ones began in the merged order.

    With maps for all nodes it is the whole model in another order, and computes the same.

    Raises:
      UserError: a stream that goes on and in which features were merged, so that there is no way back.
    """
    found = {}
    for name, axes in _known(table, model, only):
        for axis in axes:
            for part in axis.parts if axis.role == "written" else ():
                if part.nodes in maps and not _invertible(maps[part.nodes][index].unmerge):
                    raise UserError(
                        f"features of {table.nodes[part.nodes[-1]].name} are merged, but {name} goes on writing into "
                        f"them in each model of its own: end at a stage, or permute or rotate them."
                    )
        made = _mapped(model[name], axes, maps, index, lambda pair: pair.unmerge.T, 1.0)
        found[name] = np.asarray(made, np.asarray(model[name]).dtype)
    return found


def _known(table: Table, leaves: Leaves, only: Callable[[str], bool] | None) -> list[tuple[str, tuple[Axis, ...]]]:
    chosen = [name for name in leaves if only is None or only(name)]
    for name in chosen:
        if name not in table.axes:
            raise UserError(f"no rule says how to merge the weight {name}.")
    return [(name, table.axes[name]) for name in chosen]


def _mapped(
    leaf: Any, axes: tuple[Axis, ...], maps: Maybe, m: int, writes: Callable[[Maps], np.ndarray], share: float
) -> np.ndarray:
    """``share``: what stretches of an axis that have no maps count for, beside others that are merged."""
    shape = np.shape(leaf)
    array = np.asarray(leaf, np.float64).reshape([sum(part.size for part in axis.parts) for axis in axes])
    for i, axis in enumerate(axes):
        if not any(part.nodes in maps for part in axis.parts):
            continue
        pieces, start = [], 0
        for part in axis.parts:
            piece = np.take(array, np.arange(start, start + part.size), axis=i)
            start += part.size
            if part.nodes in maps:
                pair = maps[part.nodes][m]
                piece = _along(piece, i, part, pair.unmerge.T if axis.role == "read" else writes(pair))
            elif axis.role == "written":
                piece = piece * share
            pieces.append(piece)
        array = np.concatenate(pieces, axis=i) if len(pieces) > 1 else pieces[0]
    return array.reshape(shape)


def _along(array: np.ndarray, axis: int, part: Part, matrix: np.ndarray) -> np.ndarray:
    """A matrix on the features of an axis, which may have other factors before and behind them."""
    before, behind = part.around
    shape = array.shape
    apart = array.reshape(*shape[:axis], before, -1, behind, *shape[axis + 1 :])
    mapped = np.moveaxis(np.tensordot(matrix.astype(np.float64), apart, axes=(1, axis + 1)), 0, axis + 1)
    return mapped.reshape(*shape[:axis], -1, *shape[axis + 1 :])


def _invertible(unmerge: np.ndarray) -> bool:
    """Whether a model's features can be had back from merged ones: a permutation or a rotation."""
    return bool(np.allclose(unmerge.T @ unmerge, np.eye(unmerge.shape[1]), atol=1e-4))
