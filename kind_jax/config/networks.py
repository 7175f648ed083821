"""The networks that classify images: a vision transformer, residual networks, a small one, and EfficientNet-Lite0."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

from kind_jax.config.check import STRICT, gathered, is_whole, require
from kind_jax.config.classifier import ClassifierConfig
from kind_jax.config.factored import Contraction, FactorConfig, Transformer
from kind_jax.config.roles import Role
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(Transformer, ClassifierConfig):
    """A pre-norm vision transformer (Dosovitskiy et al. 2021) with a class token, learned positions and exact GELU.

    With ``factor.projections`` it is a KIND classifier: W = U diag(s) V, where the tailors of a group of classes, its
    superclass, are switched on by the gate.

    Attributes:
      qkv_bias: whether the attention's input projection has a bias.
      norm_eps: what LayerNorm adds to the variance.
      drop_path: rate at which the residual branches of the last block are dropped for a sample; earlier blocks' rates
        rise to it linearly (stochastic depth, Huang et al. 2016).
      pool: what the head sees: the class ``token``, or the ``mean`` of the patches (and there is no token).
      groups: the superclass of each class, numbered from 0; None makes all classes one.
      gate: what switches tailors on: ``superclass``, which is then given with every image, so that the network chooses
        among the classes of one only; or ``none``, for a model without tailors.
      scan_unroll, remat, contraction: as of a diffusion transformer, see :class:`kind_jax.config.ModelConfig`.
    """

    __pydantic_config__ = STRICT

    network: Literal["vit"] = "vit"
    patch: int = 4
    width: int = 192
    depth: int = 6
    heads: int = 3
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    drop_path: float = 0.0
    pool: Literal["token", "mean"] = "token"
    groups: tuple[int, ...] | None = None
    gate: Literal["none", "superclass"] = "none"
    scan_unroll: int = 0
    remat: bool = False
    contraction: Contraction = "auto"
    factor: FactorConfig = FactorConfig(projections=())

    roles: ClassVar[dict[Role, str]] = {
        Role.WEIGHTS: "network channels mean std patch width depth heads mlp_ratio qkv_bias norm_eps pool gate",
        Role.IMAGES: "size resolution colour",
        Role.CLASSES: "num_classes groups",
        Role.TRAINING: "drop_path",
        Role.PRECISION: "dtype",
        Role.ROUNDING: "scan_unroll remat contraction",
    }

    @gathered()
    def __post_init__(self) -> None:
        if not (self._check_images() and self._check_sizes(self.seen)):
            return
        require(0 < self.norm_eps <= 1, "model.norm_eps", self.norm_eps, "positive and at most 1")
        require(0 <= self.drop_path < 1, "model.drop_path", self.drop_path, "at least 0 and below 1")
        require(0 <= self.scan_unroll <= 1000, "model.scan_unroll", self.scan_unroll, "0 (the whole stack) or more")
        self._check_weights()
        wanted = "None, as all blocks of a classifier have one form"
        require(self.factor.ranks is None, "model.factor.ranks", self.factor.ranks, wanted)
        wanted = f"{'none' if self.groups is None else 'superclass'!r}, since model.groups is {self.groups}"
        require((self.gate == "superclass") == (self.groups is not None), "model.gate", self.gate, wanted)
        if self.gate == "superclass":
            factored = bool(self.factor.projections)
            wanted = "the projections whose tailors model.gate 'superclass' switches on"
            require(factored, "model.factor.projections", self.factor.projections, wanted)

    @property
    def num_groups(self) -> int:
        return 1 if self.groups is None else max(self.groups) + 1

    @property
    def group_of_class(self) -> tuple[int, ...]:
        return (0,) * self.num_classes if self.groups is None else self.groups

    @property
    def gated(self) -> bool:
        return any(form.tailors for form in self.forms.values())

    @property
    def tailors(self) -> int:
        """Tailors of one superclass in every factored weight; none without a gate."""
        return super().tailors if self.gate == "superclass" else 0

    @property
    def drop_rates(self) -> tuple[float, ...]:
        """The rate of ``drop_path`` of each block."""
        last = max(self.depth - 1, 1)
        return tuple(self.drop_path * i / last for i in range(self.depth))

    @property
    def ends(self) -> int:
        return self.depth

    @property
    def tokens(self) -> int:
        """Patches of an image, and the class token."""
        return (self.seen_size // self.patch) ** 2 + (self.pool == "token")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetConfig(ClassifierConfig):
    """A residual network (He et al. 2016).

    Attributes:
      depth: 20, 32, 44, 56 or 110 for the type for small images (a stem of 3 x 3, three stages of 16, 32 and 64
        channels); 18, 34 or 50 for ImageNet's, as torchvision has it (a stem of 7 x 7 and a pool; 50 with bottlenecks,
        whose 3 x 3 convolution has the stride).
      stages: blocks of each stage, where these are not those of ``depth``, which then says the type alone.
      width: multiplier of all channels.
      shortcut: how a block's input meets its output where their shapes differ: ``conv1`` and ``conv3``, a convolution
        of 1 x 1 or 3 x 3 with its norm; ``pad``, every second pixel and channels of zeros (option A, no parameters).
      momentum: share of a batch's moments in the running ones after a step (PyTorch's meaning).
      norm_eps: what BatchNorm adds to the variance.
    """

    __pydantic_config__ = STRICT

    network: Literal["resnet"] = "resnet"
    depth: int = 20
    stages: tuple[int, ...] | None = None
    width: float = 1.0
    shortcut: Literal["conv1", "conv3", "pad"] = "conv1"
    momentum: float = 0.1
    norm_eps: float = 1e-5

    roles: ClassVar[dict[Role, str]] = {
        Role.WEIGHTS: "network channels mean std depth stages width shortcut norm_eps",
        Role.IMAGES: "size resolution colour",
        Role.CLASSES: "num_classes",
        Role.TRAINING: "momentum",
        Role.PRECISION: "dtype",
    }

    @gathered()
    def __post_init__(self) -> None:
        if not self._check_images():
            return
        known = (*_SMALL, *_BLOCKS)
        require(self.depth in known, "model.depth", self.depth, f"one of {', '.join(map(str, known))}")
        if self.depth in known and self.stages is not None:
            count = 4 if self.imagenet else 3
            possible = len(self.stages) == count and all(1 <= n <= 1000 for n in self.stages)
            require(possible, "model.stages", self.stages, f"{count} numbers of blocks, each 1 or more, at most 1000")
        require(0 < self.width <= 64 and self.channels_of(0) >= 1, "model.width", self.width, "above 0, at most 64")
        require(0 < self.momentum <= 1, "model.momentum", self.momentum, "above 0 and at most 1")
        require(0 < self.norm_eps <= 1, "model.norm_eps", self.norm_eps, "positive and at most 1")
        possible = self.shortcut == "conv1" or self.depth in _SMALL
        require(possible, "model.shortcut", self.shortcut, "'conv1' for ImageNet's type")
        least = 4 if self.depth in _SMALL else 32
        require(self.seen_size >= least, f"model.{self.seen}", self.seen_size, f"{least} or more for this type")

    @property
    def imagenet(self) -> bool:
        """Whether it is of ImageNet's type."""
        return self.depth in _BLOCKS

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        if self.stages is not None:
            return self.stages
        return _BLOCKS[self.depth] if self.imagenet else ((self.depth - 2) // 6,) * 3

    @property
    def bottleneck(self) -> bool:
        return self.depth >= 50 and self.imagenet

    @property
    def settled_stages(self) -> tuple[int, ...]:
        """Stages whose norms use their running statistics even in training, as they are parts that do not train."""
        return ()

    def channels_of(self, stage: int) -> int:
        """Channels of the 3 x 3 convolutions of a stage."""
        return round((64 if self.imagenet else 16) * 2**stage * self.width)

    @property
    def ends(self) -> int:
        return len(self.blocks)

    @property
    def features(self) -> int:
        """Channels that the head sees."""
        return self.channels_of(len(self.blocks) - 1) * (4 if self.bottleneck else 1)


_SMALL = (20, 32, 44, 56, 110)
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CNNConfig(ClassifierConfig):
    """The small residual network that judges samples (:mod:`kind_jax.nn.cnn`): seconds on a CPU, for any image size.

    Attributes:
      momentum: share of a batch's moments in the running ones after a step.
    """

    __pydantic_config__ = STRICT

    stage_count: ClassVar[int] = 3
    network: Literal["cnn"] = "cnn"
    momentum: float = 0.1

    roles: ClassVar[dict[Role, str]] = ClassifierConfig.roles | {Role.TRAINING: "momentum"}

    @gathered()
    def __post_init__(self) -> None:
        self._check_images()
        require(0 < self.momentum <= 1, "model.momentum", self.momentum, "above 0 and at most 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetConfig(ClassifierConfig):
    """EfficientNet-Lite0 (Tan & Le 2019, in the form of its authors' Lite family of 2020): no squeeze and excitation,
    ReLU6 in the place of swish.

    Attributes:
      momentum: share of a batch's moments in the running ones after a step (PyTorch's meaning).
      norm_eps: what BatchNorm adds to the variance.
    """

    __pydantic_config__ = STRICT

    stage_count: ClassVar[int] = 7
    network: Literal["efficientnet"] = "efficientnet"
    momentum: float = 0.01
    norm_eps: float = 1e-3

    roles: ClassVar[dict[Role, str]] = ClassifierConfig.roles | {
        Role.WEIGHTS: f"{ClassifierConfig.roles[Role.WEIGHTS]} norm_eps",
        Role.TRAINING: "momentum",
    }

    @gathered()
    def __post_init__(self) -> None:
        self._check_images()
        require(0 < self.momentum <= 1, "model.momentum", self.momentum, "above 0 and at most 1")
        require(0 < self.norm_eps <= 1, "model.norm_eps", self.norm_eps, "positive and at most 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZippedConfig(ClassifierConfig):
    """Several networks of one architecture that share their first stages, as merging makes them.

    Attributes:
      of: the architecture of each, without tailors.
      to: the place up to which they share everything, see :mod:`kind_jax.nn.pieces`: 0 for nothing, which is an
        ensemble; the number of a stage or block; or one more than there are, for all but the last layer of each.
      classes: how many classes the head of each has, in the order of the classes.
    """

    __pydantic_config__ = STRICT

    network: Literal["zipped"] = "zipped"
    of: ViTConfig | ResNetConfig | CNNConfig | EfficientNetConfig | ZippedConfig
    to: int
    classes: tuple[int, ...]

    roles: ClassVar[dict[Role, str]] = ClassifierConfig.roles | {
        Role.WEIGHTS: f"{ClassifierConfig.roles[Role.WEIGHTS]} of to classes"
    }

    @gathered()
    def __post_init__(self) -> None:
        self._check_images()
        for name in ("size", "channels", "resolution", "colour", "mean", "std", "dtype"):
            own, inner = getattr(self, name), getattr(self.of, name)
            require(own == inner, f"model.{name}", own, f"that of model.of, which is {inner}")
        require(not self.of.gated, "model.of.gate", "superclass", "'none': a merged network has no tailors")
        most = self.of.most_shared
        require(0 <= self.to <= most, "model.to", self.to, f"between 0 and {most}")
        possible = len(self.classes) >= 2 and min(self.classes) >= 1
        require(possible, "model.classes", self.classes, "two numbers of classes or more, each 1 or more")
        require(
            self.num_classes == sum(self.classes), "model.num_classes", self.num_classes, "the sum of model.classes"
        )

    @property
    def ends(self) -> int:
        """Stages that are shared."""
        return min(self.to, self.of.ends)

    @property
    def most_shared(self) -> int:
        return self.to if self.to <= self.of.ends else self.ends + 1


Network = ViTConfig | ResNetConfig | CNNConfig | EfficientNetConfig | ZippedConfig
"""A new network is a class above, a line here, and its module in :data:`kind_jax.model.MODULES`."""

_VITS = {"Ti": (192, 12, 3), "S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "H": (1280, 32, 16)}


def vit(name: str, **settings: Any) -> ViTConfig:
    """A published size by name, ``Ti/16`` to ``H/14``, on images of 224 pixels and 1000 classes unless told otherwise.

    H has no bias in the attention's input and a norm_eps of 1e-5, as in Deep Model Assembling's published code.

    Raises:
      UserError: the size is none of ViT's.
    """
    require(isinstance(name, str), "name", name, "a size and a patch, like B/16")
    size, _, patch = name.partition("/")
    if size not in _VITS or not patch.isdecimal():
        raise UserError(
            f"the model is {name!r:.100}, but it must be one of {', '.join(_VITS)} with a patch, like 'B/16'."
        )
    width, depth, heads = _VITS[size]
    sizes: dict[str, Any] = {"width": width, "depth": depth, "heads": heads, "patch": int(patch)}
    sizes |= {"size": 224, "num_classes": 1000}
    if size == "H":
        sizes |= {"qkv_bias": False, "norm_eps": 1e-5}
    return ViTConfig(**(sizes | settings))


def resnet(depth: int, **settings: Any) -> ResNetConfig:
    """A residual network of this depth: on images of 32 pixels and 10 classes, or 224 and 1000 for ImageNet's type.

    Raises:
      UserError: there is none of this depth.
    """
    require(is_whole(depth), "depth", depth, "a number of layers, like 50")
    sizes: dict[str, Any] = {"depth": depth}
    sizes |= {"size": 224, "num_classes": 1000} if depth in _BLOCKS else {}
    return ResNetConfig(**(sizes | settings))


def efficientnet_lite0(**settings: Any) -> EfficientNetConfig:
    """EfficientNet-Lite0 on images of 224 pixels and 1000 classes unless told otherwise."""
    sizes: dict[str, Any] = {"size": 224, "num_classes": 1000}
    return EfficientNetConfig(**(sizes | settings))
