"""What a page shows. N: pictures, H: height, W: width, C: 1 for grey or 3 for colour."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from kind_jax.deploy.compose import Composed
from kind_jax.playing.judging import Accuracy


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Strip:
    """Pictures that belong together.

    Attributes:
      title: what they are of.
      images: nominally in [-1, 1].
      remark: what the judge sees in them, where there is one.
      large: whether they are what the page is about.
    """

    title: str
    images: Float[np.ndarray, "N H W C"]
    remark: str = ""
    large: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Figures:
    """Sizes, of the source with the tailors of the chosen classes and of the model that draws.

    Attributes:
      parameters, flops, bytes: (source, drawn): parameters, FLOPs of one evaluation on one image, bytes of float32.
      components: (kept, all) over all weights; None where the model has none.
      energy: share kept of the components' energy.
    """

    parameters: tuple[int, int]
    flops: tuple[int, int]
    bytes: tuple[int, int]
    components: tuple[int, int] | None
    energy: float

    @classmethod
    def of(cls, composed: Composed) -> Figures:
        """The figures of a composition."""
        before, after, weights = composed.before, composed.after, composed.record.weights
        kept = sum(k.learngenes + k.tailors for k in weights)
        whole = sum(k.of_learngenes + k.of_tailors for k in weights)
        return cls(
            parameters=(before.parameters, after.parameters),
            flops=(before.flops, after.flops),
            bytes=(4 * before.parameters, 4 * after.parameters),
            components=(kept, whole) if whole else None,
            energy=composed.record.energy,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One page.

    Attributes:
      strips: pictures, the most important first.
      figures: sizes.
      accuracy: of the classes alone; None without a judge, or where no class was asked for.
      notes: sentences about what the controls do here.
    """

    strips: tuple[Strip, ...]
    figures: Figures
    accuracy: Accuracy | None
    notes: tuple[str, ...]
