"""The settings of a run that trains a classifier of images."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from kind_jax.config import RunConfig, TrainConfig
from kind_jax.config.check import STRICT, gathered, require, require_hash
from kind_jax.config.networks import Network, ViTConfig
from kind_jax.config.roles import Role

HEAD = "head"
"""The layer of every network that gives the logits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is done to the images of a training batch, on the device, drawn anew in every step; ``data.flip`` mirrors.

    Attributes:
      crop: pixels by which an image is padded on every side before a piece of its own size is cut out at random; 0 for
        none.
      border: what it is padded with: ``zero`` (grey), or its own border pixels (``edge``) or rows (``reflect``).
      resized_crop: least and greatest share of the area of a random piece that is scaled to the whole image, its sides
        in a ratio of 3/4 to 4/3 (Inception's crop); None for none.
      randaugment: how many operations each image goes through, and their strength, 0 to 10 (Cubuk et al. 2020, in the
        form of DeiT's recipe, without its noise on the strength); None for none.
      mixup, cutmix: α of the Beta(α, α) from which the share of the other image is drawn, once a batch (Zhang et al.
        2018; Yun et al. 2019); 0 for none. With both, a batch is mixed by either with equal probability.
      erase: probability that a random rectangle, 2 % to a third of the image, is replaced by noise (Zhong et al. 2020).
    """

    __pydantic_config__ = STRICT

    crop: int = 0
    border: Literal["zero", "edge", "reflect"] = "zero"
    resized_crop: tuple[float, float] | None = None
    randaugment: tuple[int, float] | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    erase: float = 0.0

    roles: ClassVar[dict[Role, str]] = {
        Role.TRAINING: "crop border resized_crop randaugment mixup cutmix erase",
    }

    @gathered()
    def __post_init__(self) -> None:
        require(0 <= self.crop <= 1024, "augment.crop", self.crop, "between 0 and 1024")
        if self.resized_crop is not None:
            low, high = self.resized_crop
            require(0 < low <= high <= 1, "augment.resized_crop", self.resized_crop, "two shares in order, in (0, 1]")
            require(self.crop == 0, "augment.crop", self.crop, "0 with augment.resized_crop")
        if self.randaugment is not None:
            count, strength = self.randaugment
            possible = 1 <= count <= 8 and 0 <= strength <= 10
            require(possible, "augment.randaugment", self.randaugment, "1 to 8 operations and a strength from 0 to 10")
        for name in ("mixup", "cutmix"):
            require(0 <= getattr(self, name) <= 100, f"augment.{name}", getattr(self, name), "between 0 and 100")
        require(0 <= self.erase <= 1, "augment.erase", self.erase, "between 0 and 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifyRun(RunConfig):
    """A run that trains a classifier.

    Attributes:
      model: one of :mod:`kind_jax.config.networks`.
      smoothing: share of a target's weight that is spread over all classes.
      holdout: the split whose accuracy is measured every ``train.sample_every`` steps, and by which the best weights
        are chosen: ``validation``, which needs ``data.validation``; or ``test``, whose figures then flatter the weights
        that they chose.
      head: whether a run that begins from another model (``--init``) keeps its head, whose classes must be those of the
        data, or begins with a ``fresh`` one.
      source: SHA-256 of the weights that it began from; written by the run itself.
    """

    __pydantic_config__ = STRICT
    task: ClassVar[str] = "classification"
    roles: ClassVar[dict[Role, str]] = {Role.TRAINING: "smoothing head source", Role.UPKEEP: "holdout"}

    model: Network = ViTConfig()
    augment: AugmentConfig = AugmentConfig()
    smoothing: float = 0.0
    holdout: Literal["validation", "test"] = "test"
    head: Literal["keep", "fresh"] = "keep"
    source: str | None = None

    @gathered()
    def __post_init__(self) -> None:
        require(0 <= self.smoothing < 1, "smoothing", self.smoothing, "at least 0 and below 1")
        held = self.data.validation
        wanted = f"'{'validation' if held else 'test'}', since data.validation is {held}"
        require((self.holdout == "validation") == (held > 0), "holdout", self.holdout, wanted)
        require_hash("source", self.source)
        alone = self.train.batch == 1 and not isinstance(self.model, ViTConfig)
        require(not alone, "train.batch", self.train.batch, "2 or more, since BatchNorm normalises by the batch")
        require(self.data.source != "latents", "data.source", self.data.source, "a source of images")
        possible = self.train.null in (0, TrainConfig().null)  # which a file need not mention
        require(possible, "train.null", self.train.null, "left alone for a classifier, which has no null class")
        dropped = self.train.embedding_dropout
        require(dropped == 0, "train.embedding_dropout", dropped, "0 for a classifier, which embeds no labels")
        reach, size = self.augment.crop, self.model.size
        possible = reach < size or self.augment.border != "reflect"
        require(possible, "augment.crop", reach, f"below model.size, which is {size}, where rows are reflected")


def altered(config: ClassifyRun) -> str | None:
    """A setting that alters training images anew in every step; None where they stay as they are."""
    if config.data.flip:
        return "data.flip"
    augment = config.augment
    on = [name for name in ("crop", "mixup", "cutmix", "erase") if getattr(augment, name)]
    on += [name for name in ("resized_crop", "randaugment") if getattr(augment, name) is not None]
    return f"augment.{on[0]}" if on else None
