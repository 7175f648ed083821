"""All pictures of a page as one batch, whose arrays have the same shapes wherever the controls are.

So one compiled program of a model draws every page: weights, classes and the seed are its arguments. Only the number of
tailors that a gate names grows with the number of chosen classes, to the next power of two. N: pictures.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int32

from kind_jax.deploy.bundle import Bundle
from kind_jax.nn.gate import Gate
from kind_jax.partition import TAILORS
from kind_jax.playing.controls import Controls

MIXED = 16
"""Pictures of the mixture."""
ALONE = 32
"""Pictures of single classes, shared among the chosen ones."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """What is drawn.

    Attributes:
      labels: class of each picture for the label embedding, where the model has one: in the mixture the heaviest.
      gate: tailors of each picture; None for a model that cannot gate any.
      mixed: which pictures are of the mixture.
      alone: which are of each class alone, by its number.
    """

    labels: Int32[np.ndarray, " N"]
    gate: Gate | None
    mixed: slice
    alone: dict[int, slice]


def gated(bundle: Bundle) -> bool:
    """Whether the model has tailors that a gate can weigh."""
    return bool(bundle.collections[TAILORS])


def batch_of(bundle: Bundle, controls: Controls) -> Batch:
    """The batch for one position of the controls.

    Raises:
      UserError: a class that the model does not know, or whose tailors are not aboard.
    """
    heaviest = max(controls.classes, key=lambda c: controls.weight_of[c])
    each = ALONE // len(controls.classes)
    alone = {c: slice(MIXED + i * each, MIXED + (i + 1) * each) for i, c in enumerate(controls.classes)}
    labels = np.full(MIXED + ALONE, controls.classes[-1], np.int32)  # what no class needs is drawn, but not shown
    labels[:MIXED] = heaviest
    for number, rows in alone.items():
        labels[rows] = number
    return Batch(labels=labels, gate=_gate(bundle, controls, labels), mixed=slice(MIXED), alone=alone)


def _gate(bundle: Bundle, controls: Controls, labels: Int32[np.ndarray, " N"]) -> Gate | None:
    if not gated(bundle):
        return None
    weights = {c: 0.0 if controls.learngenes_only else w for c, w in controls.weight_of.items()}
    mixture = _filled(bundle, weights)
    alone: list[dict[int | str, float]] = [{c: weights[c]} for c in labels[MIXED:].tolist()]
    return bundle.gate([mixture] * MIXED + alone)


def _filled(bundle: Bundle, weights: dict[int, float]) -> dict[int | str, float]:
    """``weights`` and enough classes of weight 0 that the gate names a power of two of the bank's rows, or all."""
    row_of_class = bundle.gates.row_of_class
    bundle.gates.check(tuple(weights))
    rows = {row_of_class[c] for c in weights}
    width = min(1 << (len(rows) - 1).bit_length(), len(bundle.groups))
    filled: dict[int | str, float] = {**weights}
    for number in bundle.served:
        if len(rows) == width:
            break
        if row_of_class[number] not in rows:
            rows.add(row_of_class[number])
            filled[number] = 0.0
    return filled
