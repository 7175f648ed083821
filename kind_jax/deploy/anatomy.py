"""What a model is made of: sizes of its collections and the energy of its components."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kind_jax import partition
from kind_jax.partition import LEARNGENES, PARAMS, STATS, TAILORS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """One factored weight.

    Attributes:
      name: ``blocks.<layer>.<projection>``.
      shape: (d_in, d_out) of the weight.
      learngenes, tailors: components shared, and components of one group.
      energy_learngenes: sum of squared component norms (|s| |u| |v|)² over the learngenes.
      energy_tailors: the same over one group's tailors, mean over groups.
    """

    name: str
    shape: tuple[int, int]
    learngenes: int
    tailors: int
    energy_learngenes: float
    energy_tailors: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """Parameters and bytes of a part of the model."""

    name: str
    parameters: int
    bytes: int


def sizes(collections: partition.Collections, groups: int) -> list[Size]:
    """Size of each collection, of one group's tailors, and of the whole and of the model that serves one group."""

    def of(name: str, *trees: Any) -> Size:
        leaves = [leaf for tree in trees for leaf in jax.tree.leaves(tree)]
        return Size(
            name=name,
            parameters=sum(leaf.size for leaf in leaves),
            bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        )

    shared = [of(name, collections[name]) for name in (LEARNGENES, PARAMS, STATS) if name in collections]
    bank = of(f"{TAILORS} of all {groups} groups", collections[TAILORS])
    whole = of("whole model", *collections.values())
    if not groups or not bank.parameters:
        return [*shared, whole]
    one = Size(name=f"{TAILORS} of one group", parameters=bank.parameters // groups, bytes=bank.bytes // groups)
    serving_one = Size(
        name="model that serves one group",
        parameters=sum(s.parameters for s in shared) + one.parameters,
        bytes=sum(s.bytes for s in shared) + one.bytes,
    )
    return [*shared, bank, one, whole, serving_one]


def energy(u: np.ndarray, s: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(|s| |u| |v|)² of every component, [..., n]; u is [..., d_in, n], v [..., n, d_out]."""
    return s**2 * np.sum(u**2, axis=-2) * np.sum(v**2, axis=-1)


def layers(collections: partition.Collections) -> list[Layer]:
    """Every weight that has components, by layer and projection; the dense part of a mixed one is not counted."""
    flat = {**partition.flatten(collections[LEARNGENES]), **partition.flatten(collections[TAILORS])}
    weights: dict[str, dict[str, np.ndarray]] = {}
    for path, leaf in flat.items():
        weight, _, part = path.rpartition("/")
        weights.setdefault(weight, {})[part] = np.asarray(leaf, np.float64)
    found = []
    for path, parts in weights.items():
        name = path.removeprefix("blocks/")
        block, _, rest = name.partition("/")
        apart = block.isdigit()
        if apart:  # blocks of a composed model are not stacked
            parts = {part: a[:, None] if part.endswith("_t") else a[None] for part, a in parts.items()}
        count = next(iter(parts.values())).shape[1 if "s" not in parts else 0]
        nothing = np.zeros(count)
        mine = energy(parts["u"], parts["s"], parts["v"]).sum(-1) if "s" in parts else nothing
        theirs = energy(parts["u_t"], parts["s_t"], parts["v_t"]).sum(-1).mean(0) if "s_t" in parts else nothing
        for depth in range(count):
            projection = (rest if apart else name).removeprefix("attention/")
            found.append(
                Layer(
                    name=f"blocks.{block if apart else depth}.{projection}",
                    shape=_shape(parts),
                    learngenes=parts["s"].shape[-1] if "s" in parts else 0,
                    tailors=parts["s_t"].shape[-1] if "s_t" in parts else 0,
                    energy_learngenes=float(mine[depth]),
                    energy_tailors=float(theirs[depth]),
                )
            )
    return sorted(found, key=lambda layer: [int(p) if p.isdigit() else p for p in layer.name.split(".")])


def _shape(parts: Mapping[str, np.ndarray]) -> tuple[int, int]:
    end = "" if "s" in parts else "_t"
    return parts[f"u{end}"].shape[-2], parts[f"v{end}"].shape[-1]


def as_bars(layers: list[Layer]) -> dict[str, dict[str, float]]:
    """Energies in the form that :func:`kind_jax.plots.energy_bars` draws."""
    return {
        layer.name: {"learngenes": layer.energy_learngenes, "tailors of one group": layer.energy_tailors}
        for layer in layers
    }
