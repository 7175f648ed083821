"""What the settings of all networks that see images have in common."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from kind_jax.config.check import STRICT, require

_MOST = {"size": 16_384, "resolution": 16_384, "channels": 4096, "num_classes": 1_000_000}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagesConfig:
    """What every network that sees images [size, size, channels] has.

    Attributes:
      resolution: pixels on a side to which images are scaled before the network sees them, bilinearly and with
        antialiasing; None for those that they have.
      colour: whether images in grey are shown to it in three equal channels, as a network for colour images needs.
      mean, std: of each channel that it sees, of images in [0, 1]: what a network that others have trained was used
        to. None: it sees images in [-1, 1] as they are.
      dtype: the dtype of activations; parameters and statistics are float32.
    """

    __pydantic_config__ = STRICT

    size: int = 32
    channels: int = 3
    resolution: int | None = None
    colour: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"

    @property
    def seen(self) -> Literal["size", "resolution"]:
        """The setting that is the size of the images that the network itself sees."""
        return "size" if self.resolution is None else "resolution"

    @property
    def seen_size(self) -> int:
        """Pixels on a side of the images that the network itself sees."""
        return self.size if self.resolution is None else self.resolution

    @property
    def seen_channels(self) -> int:
        """Channels of the images that the network itself sees."""
        return 3 if self.colour else self.channels

    def _check_images(self) -> bool:
        fields = [field.name for field in dataclasses.fields(self) if field.name in _MOST]
        found = {name: getattr(self, name) for name in fields if getattr(self, name) is not None}
        odd = [
            name
            for name, value in found.items()
            if not require(1 <= value <= _MOST[name], f"model.{name}", value, f"1 or more, at most {_MOST[name]}")
        ]
        require(not self.colour or self.channels == 1, "model.channels", self.channels, "1 where model.colour is True")
        require(
            (self.mean is None) == (self.std is None), "model.std", self.std, "given where model.mean is, and None else"
        )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None:
                wanted = f"one finite number for each of {self.seen_channels} channels, those of std positive"
                fits = len(values) == self.seen_channels and all(map(math.isfinite, values))
                require(fits and (name == "mean" or min(values) > 0), f"model.{name}", values, wanted)
        return not odd
