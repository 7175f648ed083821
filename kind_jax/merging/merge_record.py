"""What a merge did, for people and for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pydantic

from kind_jax import sealed
from kind_jax.config.check import STRICT, problem
from kind_jax.deploy import decomposition
from kind_jax.deploy.divide import Layer
from kind_jax.errors import UserError

HEADER = (
    "projection", "shape", "learngenes", "tailors", "energy of learngenes", "of tailors", "lost", "error", "largest",
    "parameters", "bytes", "before",
)  # fmt: skip
"""What the columns of :func:`rows` are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergedLayer(Layer):
    """What became of one projection of all models. ``norm`` is the root of the mean square over all classes, and so are
    means over groups weighted by their classes.

    Attributes:
      start: what the shared part began from.
      sweeps: until it stood still.
      parameters: with the bias.
      before: parameters of the projection in all models together.
    """

    __pydantic_config__ = STRICT

    start: str
    sweeps: int
    parameters: int
    before: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """One of the models that were merged.

    Attributes:
      origin: the last part of its path.
      source: SHA-256 of its weights.
      classes: names of those that it brings.
    """

    __pydantic_config__ = STRICT

    origin: str
    source: str
    classes: tuple[str, ...]
    parameters: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What a merge did.

    Attributes:
      models: in the order of their classes.
      method: ``exact`` joined them as they are.
      align: whether hidden units were put in the first model's order.
      parameters, bytes: of the merged model.
      layers: every projection that was decomposed.
      differences: of the dense parameters, which were averaged: see :func:`kind_jax.merging.dense.mean_and_difference`.
    """

    __pydantic_config__ = STRICT

    models: tuple[Model, ...]
    method: Literal["exact", "joint", "average"]
    align: Literal["weights", "none"]
    parameters: int
    bytes: int
    layers: tuple[MergedLayer, ...]
    differences: dict[str, float]


_ADAPTER = pydantic.TypeAdapter(Record)


def write(path: Path, record: Record) -> None:
    """Write a sealed file.

    Raises:
      UserError: it cannot be written.
    """
    sealed.write(path, _ADAPTER.dump_python(record, mode="json"))


def read(path: Path) -> Record:
    """Read it back.

    Raises:
      UserError: there is no such file, or it is damaged or no record of a merge.
    """
    try:
        return _ADAPTER.validate_json(sealed.read(path))
    except pydantic.ValidationError as e:
        raise UserError(f"{path} is no record of a merge: {problem(e)}.") from e


def rows(layers: Sequence[MergedLayer]) -> list[tuple[str, ...]]:
    """A row of text for each projection, and one for all together; :data:`HEADER` names the columns."""
    whole = decomposition.total(layers)
    parameters, before = (sum(getattr(layer, name) for layer in layers) for name in ("parameters", "before"))

    def row(layer: Layer, shape: str, parameters: int, before: int) -> tuple[str, ...]:
        return (
            layer.name, shape, f"{layer.learngenes:,}", f"{layer.tailors:,}", f"{layer.energy_learngenes:.2%}",
            f"{layer.energy - layer.energy_learngenes:.2%}", f"{1 - layer.energy:.2%}", f"{layer.error:.2g}",
            f"{layer.error_max:.2g}", f"{parameters:,}", f"{4 * parameters:,}", f"{before:,}",
        )  # fmt: skip

    each = [row(layer, f"{layer.shape[0]} x {layer.shape[1]}", layer.parameters, layer.before) for layer in layers]
    return [*each, row(whole, "", parameters, before)]
