"""What a decomposition did, for people and for programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from kind_jax.deploy.bundle import Bundle
from kind_jax.deploy.divide import Layer, Residual

HEADER = (
    "projection", "shape", "learngenes", "tailors", "energy of learngenes", "with own tailors", "error", "largest",
    "seconds", "method",
)  # fmt: skip
"""What the columns of :func:`rows` are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decomposed:
    """A decomposable model.

    Attributes:
      bundle: the model, with tailors of every group.
      layers: a record of each projection that was decomposed, blocks in order.
      before, after: parameters of the dense model, and of this one with all groups.
      residual: what tailors began with.
      seed: of sketches and random directions.
      source: SHA-256 of the dense model's weights (``partition.fingerprint``).
    """

    bundle: Bundle
    layers: tuple[Layer, ...]
    before: int
    after: int
    residual: Residual
    seed: int
    source: str

    @property
    def total(self) -> Layer:
        """All projections as one weight."""
        return total(self.layers)


def total(layers: Sequence[Layer]) -> Layer:
    """Projections as one weight; the largest error is that of the group and projection that lose most."""
    squares = [layer.norm**2 for layer in layers]
    if not any(squares):  # of weights that are all zero, none counts more
        squares = [1.0] * len(layers)
    whole = sum(squares)

    def mean(values: list[float]) -> float:
        return sum(v * s for v, s in zip(values, squares, strict=True)) / whole

    same = {layer.method for layer in layers}
    return Layer(
        name="all",
        shape=(sum(layer.shape[0] for layer in layers), sum(layer.shape[1] for layer in layers)),
        learngenes=sum(layer.learngenes for layer in layers),
        tailors=sum(layer.tailors for layer in layers),
        norm=math.hypot(*(layer.norm for layer in layers)),
        energy_learngenes=mean([layer.energy_learngenes for layer in layers]),
        energy=mean([layer.energy for layer in layers]),
        error=math.sqrt(mean([layer.error**2 for layer in layers])),
        error_max=max(layer.error_max for layer in layers),
        seconds=sum(layer.seconds for layer in layers),
        method="exact" if same == {"exact"} else "randomised",
    )


def rows(decomposed: Decomposed) -> list[tuple[str, ...]]:
    """A row of text for each projection, and one for all together; :data:`HEADER` names the columns."""

    def row(layer: Layer, shape: str, method: str) -> tuple[str, ...]:
        return (
            layer.name, shape, f"{layer.learngenes:,}", f"{layer.tailors:,}", f"{layer.energy_learngenes:.2%}",
            f"{layer.energy:.2%}", f"{layer.error:.2g}", f"{layer.error_max:.2g}", f"{layer.seconds:.2f}", method,
        )  # fmt: skip

    each = [row(layer, f"{layer.shape[0]} x {layer.shape[1]}", layer.method) for layer in decomposed.layers]
    return [*each, row(decomposed.total, "", "")]


def record(decomposed: Decomposed) -> dict[str, Any]:
    """The same as JSON values, with what the model was made from."""
    model, whole = decomposed.bundle.config.model, decomposed.total
    return {
        "source": decomposed.source,
        "residual": decomposed.residual,
        "seed": decomposed.seed,
        "groups": model.num_groups,
        "parameters": {"dense": decomposed.before, "decomposed": decomposed.after},
        "energy_learngenes": whole.energy_learngenes,
        "energy": whole.energy,
        "error": whole.error,
        "error_max": whole.error_max,
        "seconds": whole.seconds,
        "layers": [{**dataclasses.asdict(layer), "shape": list(layer.shape)} for layer in decomposed.layers],
    }


def picture(decomposed: Decomposed) -> bytes:
    """PNG: a panel for each projection and a bar for each block, how its energy is divided."""
    from kind_jax.deploy.decomposition_picture import energy_shares

    return energy_shares(decomposed.layers)
