"""What a composed model kept of its source: the record in its manifest."""

from __future__ import annotations

import dataclasses
from typing import Literal

from kind_jax.config.check import STRICT

Form = Literal["auto", "dense", "factored"]
Criterion = Literal["energy", "svd", "loss"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """What was kept of one weight.

    Attributes:
      name: block and projection, like ``3/qkv``.
      learngenes, of_learngenes: components of the always-on part, kept and in the source. Where one group's
        tailors were folded in after a new factorisation (criterion svd), the two cannot be told apart: all components
        of their sum count here, and there are no tailors. A weight that is dense in the source has none.
      tailors, of_tailors: components of one group.
      form: how the always-on part is held; tailors that are gated stay factored.
      energy: share kept of the sum of the components' (|s| |u| |v|)², tailors as the mean over groups; 1 for a weight
        of which nothing was left out.
      error: Frobenius norm of what was left out relative to the weight's, mean over groups.
      parameters, flops: of the weight with its bias; see :mod:`kind_jax.deploy.cost`.
    """

    __pydantic_config__ = STRICT

    name: str
    learngenes: int
    of_learngenes: int
    tailors: int
    of_tailors: int
    form: Literal["dense", "factored"]
    energy: float
    error: float
    parameters: int
    flops: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Composition:
    """How a model was composed.

    Attributes:
      classes: the classes that were asked for.
      folded: whether the tailors of the only group were folded into the always-on part.
      max_params, max_flops, rank: the budget; None for none.
      form, criterion: as asked for.
      source: SHA-256 of the learngenes of the model that it was composed from (``partition.fingerprint``).
      energy: share kept of the components' energy over all weights.
      weights: what was kept of each projection.
    """

    __pydantic_config__ = STRICT

    classes: tuple[int, ...]
    folded: bool
    max_params: int | None
    max_flops: int | None
    rank: int | None
    form: Form
    criterion: Criterion
    source: str
    energy: float
    weights: tuple[Kept, ...] = dataclasses.field(repr=False)
