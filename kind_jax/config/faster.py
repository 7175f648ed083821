"""Faster training of a diffusion transformer: token routing and Model Guidance. Both are off unless asked for.

Neither changes the model: what comes out is sampled, exported and composed like any other.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from kind_jax.config.check import STRICT, gathered, require
from kind_jax.config.model import ModelConfig

_BEFORE_THE_END = 4  # the last block of the published route is this many before the depth


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoutingConfig:
    """Token routing (TREAD, Krause et al. 2025, arXiv 2501.04765): in training, a random part of an image's tokens
    skips some blocks, and comes back unchanged behind them.

    Attributes:
      rate: share of the tokens that skip; 0 is off. Published: 0.5; 0.75 was worse than no routing.
      first: the first block that is skipped, counted from 0.
      last: the last one. Tokens that come back need blocks behind it to find their place, so it is never the model's
        last; None is ``model.depth`` - 4, which is the published 8 of 12 blocks.
    """

    __pydantic_config__ = STRICT

    rate: float = 0.0
    first: int = 2
    last: int | None = None

    @gathered()
    def __post_init__(self) -> None:
        require(0 <= self.rate < 1, "routing.rate", self.rate, "0 (off) or more, and below 1")
        require(self.first >= 0, "routing.first", self.first, "0 or more")
        require(self.last is None or self.last >= 0, "routing.last", self.last, "0 or more, or None")

    def span(self, depth: int) -> tuple[int, int]:
        """The first and the last block that are skipped, of a model of so many."""
        return self.first, depth - _BEFORE_THE_END if self.last is None else self.last

    def kept(self, tokens: int) -> int:
        """How many of an image's tokens go through all blocks, at least one."""
        return max(tokens - round(self.rate * tokens), 1)

    def tokens(self, model: ModelConfig) -> tuple[int, ...]:
        """How many tokens of an image each block sees in training."""
        every = (model.size // model.patch) ** 2
        first, last = self.span(model.depth)
        few = self.kept(every) if self.rate else every
        return tuple(few if first <= i <= last else every for i in range(model.depth))

    def check(self, model: ModelConfig) -> None:
        """Refuse a route that the model has no room for."""
        if not self.rate:
            return
        (first, last), depth = self.span(model.depth), model.depth
        stands = "" if self.last is not None else f" (None stands for model.depth - 4, which is {last})"
        wanted = (
            f"between routing.first, which is {first}, and {depth - 2}, as the last of the {depth} blocks must see all "
            f"tokens{stands}"
        )
        require(first <= last <= depth - 2, "routing.last", self.last, wanted)
        tokens = (model.size // model.patch) ** 2
        wanted = f"0, or enough for one of the {tokens} tokens of an image to skip blocks, and for one to be left"
        require(self.kept(tokens) < tokens, "routing.rate", self.rate, wanted)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """Model Guidance (Tang et al. 2025, arXiv 2502.12154): the target of training is guided already, so that samples
    need no guidance, and cost one evaluation a step instead of two.

    Attributes:
      scale: of guidance; 1 is off. The target moves by ``scale`` - 1 times what the class makes of the prediction.
        Published: 1.25 to 1.75, by model and data.
      start: steps of plain training before it; early predictions know little of a class. Published: a quarter or less
        of the run.
      until: the noise level up to which it is applied, from 0 (none) to 1 (all noise). Published: 1, and 0.75 for the
        largest model.
    """

    __pydantic_config__ = STRICT

    scale: float = 1.0
    start: int = 0
    until: float = 1.0

    @property
    def on(self) -> bool:
        return self.scale != 1

    @gathered()
    def __post_init__(self) -> None:
        possible = math.isfinite(self.scale) and 1 <= self.scale <= 100
        require(possible, "guidance.scale", self.scale, "1 (off) or more, at most 100")
        require(0 <= self.start < 2**31, "guidance.start", self.start, "0 or more")
        require(0 < self.until <= 1, "guidance.until", self.until, "above 0 and at most 1 (everywhere)")

    def check(self, model: ModelConfig, null: float, steps: int) -> None:
        """Refuse a run in which there is nothing to guide by, or no step that is guided.

        Args:
          null: ``train.null``.
          steps: ``train.steps``.
        """
        if not self.on:
            return
        wanted = "1 (off) where train.null is 0: guidance is away from the null class, which no sample would train"
        require(null > 0, "guidance.scale", self.scale, wanted)
        wanted = "1 (off) where train.null is 1: no sample would keep its class"
        require(null < 1, "guidance.scale", self.scale, wanted)
        classes = model.num_classes
        wanted = "1 (off) for a model of one class, which has no other to be guided away from"
        require(classes > 1, "guidance.scale", self.scale, wanted)
        require(self.start < steps, "guidance.start", self.start, f"below train.steps, which is {steps}")


def unhurried(config: Any) -> Any:
    """A diffusion run's settings with both off: for losses that compare models, and for runs of other kinds, whose
    losses have no place for them."""
    return dataclasses.replace(config, routing=RoutingConfig(), guidance=GuidanceConfig())


def refuse_faster(config: Any, where: str) -> None:
    """Refuse both in a run of another kind, ``where`` says in which."""
    require(config.routing.rate == 0, "routing.rate", config.routing.rate, f"0 {where}")
    require(not config.guidance.on, "guidance.scale", config.guidance.scale, f"1 {where}")
