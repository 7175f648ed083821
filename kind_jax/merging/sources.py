"""A generator that is to be merged: its projections one by one, and the classes that each row of its bank serves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from kind_jax.deploy import components
from kind_jax.deploy.bundle import Bundle
from kind_jax.deploy.weights import Weight, take_apart
from kind_jax.nn.init import Components
from kind_jax.partition import PARAMS, TAILORS


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A model taken apart.

    Attributes:
      bundle: the model.
      weights: its projections by name, the attention input fused or separate as the merged model has it.
      params: its dense parameters, of which those inside the blocks are in ``weights``.
      classes: the classes of each group aboard, by the model's own numbers; all in one where nothing is gated.
    """

    bundle: Bundle
    weights: dict[str, Weight]
    params: dict[str, Any]
    classes: tuple[tuple[int, ...], ...]

    @property
    def gated(self) -> bool:
        """Whether each group has tailors of its own."""
        return bool(self.bundle.collections[TAILORS])

    @property
    def counts(self) -> tuple[int, ...]:
        """Classes of each group."""
        return tuple(map(len, self.classes))

    def always(self, name: str) -> Float[np.ndarray, "d_in d_out"]:
        """The part of a weight that is on for all classes, in float64."""
        weight = self.weights[name]
        if weight.kernel is not None:
            return np.asarray(weight.kernel, np.float64)
        assert weight.shared is not None
        return components.product(weight.shared)

    def whole(self, name: str, row: int) -> Float[np.ndarray, "d_in d_out"]:
        """A weight as the classes of one group have it."""
        own = self.weights[name].own
        return self.always(name) if own is None else self.always(name) + components.product(components.row(own, row))

    def mean(self, name: str) -> Float[np.ndarray, "d_in d_out"]:
        """Mean of a weight over the classes."""
        parts = [n * self.whole(name, row) for row, n in enumerate(self.counts)]
        return np.sum(parts, axis=0) / sum(self.counts)


def take(bundle: Bundle, *, separate: bool) -> Source:
    """Take a model apart.

    Args:
      separate: whether a fused attention input becomes q, k and v.
    """
    gated = bool(bundle.collections[TAILORS])
    found = take_apart(bundle.config.model, bundle.collections, range(len(bundle.groups)) if gated else ())
    if separate:
        found = [part for weight in found for part in split_input(weight)]
    group_of = bundle.config.model.group_of_class
    classes = [tuple(c for c in bundle.served if group_of[c] == g) for g in bundle.groups] if gated else [bundle.served]
    return Source(
        bundle=bundle, weights={w.name: w for w in found}, params=bundle.collections[PARAMS], classes=tuple(classes)
    )


def split_input(weight: Weight) -> list[Weight]:
    """A fused attention input as q, k and v, components and all; any other weight as it is."""
    block, _, name = weight.name.partition("/")
    if name != "qkv":
        return [weight]
    width = len(weight.bias) // 3

    def part(i: int) -> Weight:
        columns = slice(i * width, (i + 1) * width)

        def of(parts: Components | None) -> Components | None:
            return None if parts is None else parts._replace(v=parts.v[..., columns])

        kernel = None if weight.kernel is None else weight.kernel[:, columns]
        return Weight(
            name=f"{block}/{'qkv'[i]}", kernel=kernel, shared=of(weight.shared), own=of(weight.own),
            bias=weight.bias[columns],
        )  # fmt: skip

    return [part(i) for i in range(3)]


class Composed(Sequence[np.ndarray]):
    """One projection of every group of several models, models in order; made as it is asked for."""

    def __init__(self, sources: Sequence[Source], name: str) -> None:
        self._name, self._rows = name, [(source, row) for source in sources for row in range(len(source.classes))]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        source, row = self._rows[index]
        return source.whole(self._name, row)
