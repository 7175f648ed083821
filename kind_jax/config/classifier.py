"""What the settings of all networks that classify images have in common."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from kind_jax.config.check import STRICT
from kind_jax.config.images import ImagesConfig
from kind_jax.config.roles import Role


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig(ImagesConfig):
    """What every network that classifies images has."""

    __pydantic_config__ = STRICT

    num_classes: int = 10

    stage_count: ClassVar[int] = 0
    roles: ClassVar[dict[Role, str]] = {
        Role.WEIGHTS: "network channels mean std",
        Role.IMAGES: "size resolution colour",
        Role.CLASSES: "num_classes",
        Role.PRECISION: "dtype",
    }

    @property
    def num_groups(self) -> int:
        """Groups of classes that have tailors of their own; one where none has."""
        return 1

    @property
    def group_of_class(self) -> tuple[int, ...]:
        return (0,) * self.num_classes

    @property
    def gated(self) -> bool:
        """Whether some weight has tailors."""
        return False

    @property
    def ends(self) -> int:
        """Stages, or blocks of a transformer: where the network may be cut, see :mod:`kind_jax.nn.pieces`."""
        return self.stage_count

    @property
    def most_shared(self) -> int:
        """The last place up to which models of this architecture may share everything: the features."""
        return self.ends + 1

    @property
    def null_gate(self) -> Literal["learngenes"]:
        """There is no null class."""
        return "learngenes"

    @property
    def least_parameters(self) -> tuple[int, int, int]:
        """What learngenes, params and the tailors of one group hold at least."""
        return 0, 0, 0
