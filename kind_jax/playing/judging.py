"""What the judge of a run sees in the pictures of a page. N: pictures, H: height, W: width, C: channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int32

from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError
from kind_jax.evaluating.intervals import Interval, wilson
from kind_jax.evaluating.judge import Judge
from kind_jax.evaluating.shards import JUDGE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How often pictures show the class that was asked for.

    Attributes:
      right: pictures in which the judge sees their class.
      count: all pictures.
    """

    right: int
    count: int

    @property
    def interval(self) -> Interval:
        """95 % interval of the share."""
        return wilson(self.right, self.count)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.right} of {self.count}, {self.right / self.count:.0%} [{low:.0%}, {high:.0%}]"


def find(bundle: Bundle, given: Path | None = None) -> Judge | None:
    """The judge in the file ``given``; else the one that a report or an evaluation left in the run; else None.

    Raises:
      UserError: it is damaged or no judge, or of other images or classes than the model's.
    """
    path = bundle.origin / JUDGE if given is None else given
    if given is None and not path.is_file():
        return None
    judge, settings = Judge.load(path), bundle.config.model
    for what, found, wanted in (
        ("images", judge.shape, (settings.size, settings.size, settings.channels)),
        ("classes", judge.num_classes, settings.num_classes),
    ):
        if found != wanted:
            raise UserError(f"The judge {str(path)!r} is of {what} {found}, but the model's are {wanted}.")
    return judge


def seen(judge: Judge, images: Float[np.ndarray, "N H W C"]) -> Int32[np.ndarray, " N"]:
    """The class that the judge sees in each picture; what lies outside [-1, 1] is clipped, as on the screen."""
    return judge.predict(np.clip(images, -1.0, 1.0))


def in_words(classes: Int32[np.ndarray, " N"], names: Sequence[str], most: int = 3) -> str:
    """The most frequent classes and how often each is seen, like ``the judge sees 3 in 9 of 16, 8 in 7``."""
    numbers, counts = np.unique(classes, return_counts=True)
    first, *others = [(names[int(numbers[i])], int(counts[i])) for i in np.argsort(-counts, kind="stable")[:most]]
    parts = [f"{first[0]} in {first[1]} of {len(classes)}", *(f"{name} in {count}" for name, count in others)]
    return f"the judge sees {', '.join(parts)}"
