"""The settings of a run that trains a model of images and their captions."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from kind_jax.classifying.config import AugmentConfig
from kind_jax.config import RunConfig, TrainConfig
from kind_jax.config.check import STRICT, gathered, require, require_hash
from kind_jax.config.coca import CoCaConfig
from kind_jax.config.roles import Role

_MOST = 1e6  # of what multiplies a loss in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How captions become tokens.

    Attributes:
      tokenizer: ``bytes``, the bytes of UTF-8 and three tokens more, which needs nothing; or ``clip``, CLIP's byte-pair
        encoding, which needs the extra clip. The model's vocabulary must be the tokenizer's.
      truncate: whether captions that are longer than ``model.context`` lose their ends; they are refused otherwise.
      captions: which caption of an image that has several a step trains on: one drawn anew each time (``random``), or
        the ``first``.
      prompt: what a class is called in words, in zero-shot classification: its name stands for {}.
    """

    __pydantic_config__ = STRICT

    tokenizer: Literal["bytes", "clip"] = "bytes"
    truncate: bool = False
    captions: Literal["random", "first"] = "random"
    prompt: str = "{}"

    roles: ClassVar[dict[Role, str]] = {Role.TRAINING: "tokenizer truncate captions", Role.SAMPLING: "prompt"}

    @gathered()
    def __post_init__(self) -> None:
        require(self.prompt.count("{}") == 1, "text.prompt", self.prompt, "a text with one {} for the class")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionRun(RunConfig):
    """A run that trains CoCa (Yu et al. 2022) on images and captions.

    Attributes:
      augment: what is done to images; they are not mixed.
      contrastive, captioning: weights of the two losses, 1 and 2 in the paper.
      contrastive_form: whether the loss of finding the text of an image and that of finding the image of a text are
        added (``sum``, the paper's form) or averaged (``mean``, as in open_clip, where a weight of 1 is half as much).
      captioning_form: whether the captioning loss is averaged over all tokens of a batch (``tokens``), or summed over
        those of a text and averaged over texts (``texts``), which the paper leaves open.
      holdout: the split that is looked at every ``train.sample_every`` steps.
      source: SHA-256 of the weights that it began from; written by the run itself.
    """

    __pydantic_config__ = STRICT
    task: ClassVar[str] = "captioning"
    roles: ClassVar[dict[Role, str]] = {
        Role.TRAINING: "contrastive captioning contrastive_form captioning_form source",
        Role.UPKEEP: "holdout",
    }

    model: CoCaConfig = CoCaConfig()
    text: TextConfig = TextConfig()
    augment: AugmentConfig = AugmentConfig()
    contrastive: float = 1.0
    captioning: float = 2.0
    contrastive_form: Literal["sum", "mean"] = "sum"
    captioning_form: Literal["tokens", "texts"] = "tokens"
    holdout: Literal["validation", "test"] = "test"
    source: str | None = None

    @gathered()
    def __post_init__(self) -> None:
        for name in ("contrastive", "captioning"):
            require(0 <= getattr(self, name) <= _MOST, name, getattr(self, name), f"between 0 and {_MOST:g}")
        some = not self.contrastive == self.captioning == 0
        require(some, "captioning", self.captioning, "positive where contrastive is 0")
        possible = self.train.batch > 1 or not self.contrastive
        require(possible, "train.batch", self.train.batch, "2 or more where contrastive is positive")
        held = self.data.validation
        wanted = f"'{'validation' if held else 'test'}', since data.validation is {held}"
        require((self.holdout == "validation") == (held > 0), "holdout", self.holdout, wanted)
        for name in ("mixup", "cutmix"):
            value = getattr(self.augment, name)
            require(not value, f"augment.{name}", value, "0, as a caption is about one image")
        require(not self.data.flip, "data.flip", self.data.flip, "False, as captions tell left from right")
        require(self.data.source != "latents", "data.source", self.data.source, "a source of images")
        require(self.data.mix is None, "data.mix", self.data.mix, "None, as synthetic images have no captions")
        possible = self.train.null in (0, TrainConfig().null)  # which a file need not mention
        require(possible, "train.null", self.train.null, "left alone for captions, which have no null class")
        dropped = self.train.embedding_dropout
        require(dropped == 0, "train.embedding_dropout", dropped, "0 for captions, as no labels are embedded")
        reach, size = self.augment.crop, self.model.size
        possible = reach < size or self.augment.border != "reflect"
        require(possible, "augment.crop", reach, f"below model.size, which is {size}, where rows are reflected")
        require_hash("source", self.source)
