"""Gates in terms of classes, by number or name, rather than of rows of the tailor bank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from kind_jax.classes import number_of
from kind_jax.errors import UserError
from kind_jax.nn.gate import ClassGate, Gate


def gate_of(classes: Any, names: Sequence[str], gates: ClassGate) -> Gate:
    """The gate that :meth:`kind_jax.deploy.bundle.Bundle.gate` describes.

    Args:
      classes: a mapping of classes to weights, or a sequence of classes, such mappings, and None.
      names: of all classes that the model knows.
      gates: which row of the bank each class has.

    Raises:
      UserError: a class that is unknown or not aboard, a weight that is not a finite number, or nothing of the kind.
    """
    if isinstance(classes, Mapping):
        return _padded([_rows(classes, names, gates)])
    if isinstance(classes, str | bytes) or not (isinstance(classes, Sequence) or hasattr(classes, "dtype")):
        raise UserError(
            f"the classes of a gate are {classes!r:.200}, but they must be a list with an entry for each sample, like "
            "[3, 7, None], or a dict of weights for all samples, like {3: 0.5, 7: 0.5}."
        )
    if hasattr(classes, "dtype"):
        classes = np.asarray(classes)
        if classes.ndim != 1:
            raise UserError(f"the classes of a gate have shape {classes.shape}, but must have one dimension.")
    if not len(classes):
        raise UserError("the classes of a gate are empty, but there must be an entry for each sample.")
    entries: list[dict[int, float]] = []
    for entry in classes:
        if entry is None or isinstance(entry, Mapping):
            entries.append(_rows(entry or {}, names, gates))
        else:
            entries.append({gates.row_of_class[number_of(entry, names)]: 1.0})
    gates.check(tuple({number_of(entry, names) for entry in classes if not isinstance(entry, Mapping | None)}))
    return _padded(entries)


def _rows(mixture: Mapping[Any, Any], names: Sequence[str], gates: ClassGate) -> dict[int, float]:
    """Weights of rows of the bank; a class may be named once."""
    weights: dict[int, float] = {}
    for key, value in mixture.items():
        number = number_of(key, names)
        gates.check((number,))
        if number in weights:
            raise UserError(f"a mixture names class {number} ({names[number]}) twice, but it must do so once.")
        plain = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        # float32 ends at 3.4e38.
        if not plain or not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
            raise UserError(f"the weight of class {key!r} is {value!r:.100}, but it must be a finite number.")
        weights[number] = float(value)
    rows: dict[int, float] = {}
    for number, weight in weights.items():
        row = gates.row_of_class[number]
        rows[row] = rows.get(row, 0.0) + weight
    return rows


def _padded(entries: Sequence[Mapping[int, float]]) -> Gate:
    """Rows and weights of each sample side by side, filled up with weight 0."""
    width = max(1, *(len(rows) for rows in entries))
    index, weight = np.zeros((len(entries), width), np.int32), np.zeros((len(entries), width), np.float32)
    for i, rows in enumerate(entries):
        index[i, : len(rows)], weight[i, : len(rows)] = list(rows), list(rows.values())
    return Gate(jnp.asarray(index), jnp.asarray(weight))
