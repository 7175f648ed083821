"""CoCa (Yu et al. 2022): an image encoder, a text decoder that does not see the image, and one that does."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

from kind_jax.config.check import STRICT, gathered, require
from kind_jax.config.images import ImagesConfig
from kind_jax.config.roles import Role
from kind_jax.errors import UserError

_MOST = {"width": 65_536, "depth": 1000, "heads": 4096, "hidden": 1_000_000}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """A stack of transformer layers.

    Attributes:
      width: features of a token.
      depth: layers.
      heads: of each attention.
      hidden: features of the hidden layer of each MLP; None is four times the width.
    """

    __pydantic_config__ = STRICT

    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int | None = None

    roles: ClassVar[dict[Role, str]] = {Role.WEIGHTS: "width depth heads hidden"}

    @property
    def mlp(self) -> int:
        """Features of the hidden layer of each MLP."""
        return 4 * self.width if self.hidden is None else self.hidden

    def check(self, name: str) -> None:
        """Refuse impossible sizes; ``name`` is the setting that this is."""
        for field, most in _MOST.items():
            value = getattr(self, field)
            possible = (field == "hidden" and value is None) or 1 <= value <= most
            require(possible, f"{name}.{field}", value, f"1 or more, at most {most}")
        if self.heads >= 1:
            require(self.width % self.heads == 0, f"{name}.width", self.width, f"a multiple of {self.heads} heads")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoCaConfig(ImagesConfig):
    """CoCa; what the paper leaves open, or others do in another way, is a setting.

    Attributes:
      patch: pixels on a side of a patch.
      image: the encoder.
      text: the decoder of words alone (unimodal).
      multimodal: the decoder of words that also sees the image; as wide as ``text``.
      vocabulary: tokens that there are, of which number 0 is padding.
      context: tokens of a text, the one that begins it and the one that ends it among them.
      embedding: features of the embeddings by which images and texts are compared.
      queries: tokens that the captioning pooler gives for an image, whatever its size.
      pooler_heads: of the attention of the poolers.
      pooler: where the embedding of an image comes from: a second pooler, of one query, on top of the captioning one
        (``cascade``, the paper's choice) or beside it (``parallel``); or the first of the captioning pooler's tokens,
        which captions then do not see (``first``, as in open_clip).
      cross: what a layer of the multimodal decoder is: self-attention, cross-attention and one MLP (``paper``, by its
        parameter counts); or an MLP behind each of the two (``open_clip``).
      cls_mask: which tokens a token of a text sees: the earlier ones that are no padding (``valid``); or, as in
        open_clip's released weights, the same shifted by one token (``shifted``), a mistake they were trained with.
      class_token: whether the encoder has a class token in front of the patches.
      patch_bias: whether the embedding of patches has a bias.
      norm_input: whether the tokens are normalised before the first layer of the encoder.
      norm_image: whether they are normalised behind its last one.
      activation: of the MLPs: exact GELU, or x · sigmoid(1.702 x) (``quick_gelu``).
      norm_eps: what LayerNorm adds to the variance.
      scan_unroll, remat: as of a diffusion transformer, see :class:`kind_jax.config.ModelConfig`.
    """

    __pydantic_config__ = STRICT

    network: Literal["coca"] = "coca"
    patch: int = 4
    image: TowerConfig = TowerConfig(width=128, depth=4, heads=4)
    text: TowerConfig = TowerConfig(width=128, depth=2, heads=4)
    multimodal: TowerConfig = TowerConfig(width=128, depth=2, heads=4)
    vocabulary: int = 259
    context: int = 64
    embedding: int = 128
    queries: int = 16
    pooler_heads: int = 4
    pooler: Literal["cascade", "parallel", "first"] = "cascade"
    cross: Literal["paper", "open_clip"] = "paper"
    cls_mask: Literal["valid", "shifted"] = "valid"
    class_token: bool = False
    patch_bias: bool = True
    norm_input: bool = False
    norm_image: bool = True
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    norm_eps: float = 1e-6
    scan_unroll: int = 0
    remat: bool = False

    num_classes: ClassVar[int] = 0  # what there is to tell apart is said in words
    num_groups: ClassVar[int] = 1
    group_of_class: ClassVar[tuple[int, ...]] = ()
    gated: ClassVar[bool] = False
    null_gate: ClassVar[Literal["learngenes"]] = "learngenes"
    roles: ClassVar[dict[Role, str]] = {
        Role.WEIGHTS: "network channels mean std patch vocabulary context embedding queries pooler_heads pooler cross "
        "cls_mask class_token patch_bias norm_input norm_image activation norm_eps",
        Role.IMAGES: "size resolution colour",
        Role.PRECISION: "dtype",
        Role.ROUNDING: "scan_unroll remat",
    }

    @gathered()
    def __post_init__(self) -> None:
        for name in ("image", "text", "multimodal"):
            getattr(self, name).check(f"model.{name}")
        if not self._check_images():
            return
        require(self.seen_size % self.patch == 0, f"model.{self.seen}", self.seen_size, f"a multiple of {self.patch}")
        wanted = f"that of model.text, {self.text.width}: the words go on from one to the other"
        require(self.multimodal.width == self.text.width, "model.multimodal.width", self.multimodal.width, wanted)
        require(4 <= self.vocabulary <= 10_000_000, "model.vocabulary", self.vocabulary, "4 or more, at most 10000000")
        require(3 <= self.context <= 100_000, "model.context", self.context, "3 or more, at most 100000")
        require(1 <= self.embedding <= 65_536, "model.embedding", self.embedding, "between 1 and 65536")
        least = 2 if self.pooler == "first" else 1
        require(least <= self.queries <= 100_000, "model.queries", self.queries, f"{least} or more, at most 100000")
        possible = self.pooler_heads >= 1 and self.text.width % self.pooler_heads == 0
        require(possible, "model.pooler_heads", self.pooler_heads, f"a divisor of {self.text.width}, the text's width")
        require(0 < self.norm_eps <= 1, "model.norm_eps", self.norm_eps, "positive and at most 1")
        require(0 <= self.scan_unroll <= 1000, "model.scan_unroll", self.scan_unroll, "0 (the whole stack) or more")

    @property
    def towers(self) -> dict[str, TowerConfig]:
        """The three stacks of layers by name."""
        return {"image": self.image, "text": self.text, "multimodal": self.multimodal}

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.seen_size // self.patch) ** 2

    @property
    def least_parameters(self) -> tuple[int, int, int]:
        """What learngenes, params and the tailors of one group hold at least."""
        return 0, 2 * self.vocabulary * self.text.width, 0


_PAPER: dict[str, Any] = {"size": 288, "patch": 18, "vocabulary": 64_000, "queries": 256}
_SIZES = {
    "base": (TowerConfig(width=768, depth=12, heads=12), TowerConfig(width=768, depth=12, heads=12)),
    "large": (TowerConfig(width=1024, depth=24, heads=16), TowerConfig(width=1024, depth=12, heads=16)),
    "2b": (
        TowerConfig(width=1408, depth=40, heads=16, hidden=6144),
        TowerConfig(width=1408, depth=18, heads=16, hidden=5632),
    ),
}


def coca(name: str, **settings: Any) -> CoCaConfig:
    """A published size: ``base`` (382.8 M parameters without poolers and heads), ``large`` (787.4 M), ``2b``; images of
    288 pixels, patches of 18, and a vocabulary of 64,000.

    Raises:
      UserError: there is none of this name.
    """
    if name not in _SIZES:
        raise UserError(f"the model is {name!r:.100}, but it must be one of {', '.join(_SIZES)}.")
    image, text = _SIZES[name]
    sizes: dict[str, Any] = {"image": image, "text": text, "multimodal": text}
    sizes |= {"embedding": text.width, "pooler_heads": text.heads}
    return CoCaConfig(**(_PAPER | sizes | settings))
