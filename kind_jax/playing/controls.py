"""What the controls of the page say."""

from __future__ import annotations

import dataclasses
import math

from kind_jax.config.check import check_seed, gathered, is_whole, require

MOST_CLASSES = 10
"""Classes that may be chosen at once: each has a slider, and a share of the pictures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controls:
    """One position of all controls.

    Attributes:
      classes: the chosen classes by number.
      weights: of each chosen class's tailors, 1 for fully on.
      learngenes_only: all tailors off, whatever the weights are.
      share: size of the model, from 0 for the smallest that can be composed to 1 for the whole one.
      max_params: most parameters that the model may have, in place of ``share``.
      seed: of the noise.
      guidance: classifier-free guidance scale; None is the model's own setting.
      steps: sampler steps; None is the model's own setting.

    Raises:
      UserError: a value of another type or beyond these bounds. What depends on the model is refused when it is drawn.
    """

    classes: tuple[int, ...]
    weights: tuple[float, ...]
    learngenes_only: bool = False
    share: float = 1.0
    max_params: int | None = None
    seed: int = 0
    guidance: float | None = None
    steps: int | None = None

    @gathered()
    def __post_init__(self) -> None:
        count = len(self.classes)
        require(1 <= count <= MOST_CLASSES, "the number of chosen classes", count, f"between 1 and {MOST_CLASSES}")
        require(len(self.weights) == count, "the number of weights", len(self.weights), f"{count}, one for each class")
        for weight in self.weights:
            require(math.isfinite(weight), "a weight", weight, "a finite number")
        require(0 <= self.share <= 1, "share", self.share, "between 0 and 1")
        possible = self.max_params is None or (is_whole(self.max_params) and self.max_params >= 1)
        require(possible, "max_params", self.max_params, "a whole number, 1 or more")
        check_seed(self.seed, "seed")

    @property
    def weight_of(self) -> dict[int, float]:
        """The weight of each chosen class."""
        return dict(zip(self.classes, self.weights, strict=True))
