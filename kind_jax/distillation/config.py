"""The settings of a run that distils a teacher into a classifier."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

from kind_jax.classifying.config import ClassifyRun, altered
from kind_jax.config.check import STRICT, gathered, require, require_hash
from kind_jax.config.networks import Network
from kind_jax.config.roles import Role
from kind_jax.partition import PROJECTORS


class Weights(NamedTuple):
    """How much each part of the loss counts.

    Attributes:
      label: cross-entropy with the labels.
      embedding: of features: alignment and uniformity, CRD, or SRRL's squared difference.
      logits: of :func:`kind_jax.losses.kd`.
      regression: SRRL's squared difference of the logits that the teacher's head gives to the student's features.
    """

    label: float
    embedding: float
    logits: float
    regression: float


Method = Literal["align_uniform", "kd", "crd", "srrl"]

_MOST = 1e6  # of what multiplies a loss in float32

PUBLISHED: dict[Method, Weights] = {
    "align_uniform": Weights(1, 1, 1, 0),
    "kd": Weights(1, 0, 1, 0),
    "crd": Weights(1, 1, 1, 0),
    "srrl": Weights(1, 1, 0, 1),
}
"""The weights of the published code, which its command line cannot change."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """Who teaches, and by which loss: a sum of up to four parts.

    Attributes:
      teacher: a classifier of the same classes and images: a run or an artifact. Where it lies may change while a
        student is trained, not its weights.
      method: what the features are compared by: ``align_uniform`` (Farhat & Chen 2024), ``crd`` (Tian et al. 2020),
        ``srrl`` (Yang et al. 2021), or ``kd`` (Hinton et al. 2015), which compares none; and the weights of the parts
        that are not given.
      label, embedding, logits, regression: weights of the parts, see :class:`Weights`; None: as published for
        ``method``.
      align, uniform: weights of the two halves of ``align_uniform``, inside ``embedding``.
      alpha, t: their exponent and their sharpness, see :mod:`kind_jax.losses`.
      temperature: of ``logits``.
      projector: what features go through before ``align_uniform`` and ``crd`` compare them, one for each network:
        ``linear``; ``mocov2`` with one hidden layer of the features' width, ``simclrv2`` with two.
      width: of what it gives.
      negatives: of ``crd``, of other classes, for each image.
      crd_temperature: of ``crd``.
      momentum: share that a row of the memory of ``crd`` keeps when its image is seen.
      cache: folder in which the teacher's outputs are kept, so that it sees each image once and not in every step; for
        runs without augmentation, whose images are held in memory. None: it sees what the student sees.
      source, network, counts: SHA-256 of the teacher's weights, its settings, and the images of each class; written by
        the run itself.
    """

    __pydantic_config__ = STRICT

    teacher: str | None = None
    method: Method = "align_uniform"
    label: float | None = None
    embedding: float | None = None
    logits: float | None = None
    regression: float | None = None
    align: float = 1.0
    uniform: float = 1.0
    alpha: float = 2.0
    t: float = 2.0
    temperature: float = 4.0
    projector: Literal["linear", "mocov2", "simclrv2"] = "mocov2"
    width: int = 128
    negatives: int = 4096
    crd_temperature: float = 0.07
    momentum: float = 0.5
    cache: str | None = None
    source: str | None = None
    network: Network | None = None
    counts: tuple[int, ...] | None = None

    roles: ClassVar[dict[Role, str]] = {
        Role.TRAINING: "method label embedding logits regression align uniform alpha t temperature projector width "
        "negatives crd_temperature momentum source network counts",
        Role.PLACE: "teacher cache",
    }

    @gathered()
    def __post_init__(self) -> None:
        for name in Weights._fields:
            value = getattr(self, name)
            possible = value is None or 0 <= value <= _MOST
            require(possible, f"distil.{name}", value, f"between 0 and {_MOST:g}; None takes the published weight")
        wanted = "None where every part of the loss that needs a teacher has the weight 0"
        require(self.cache is None or self.taught, "distil.cache", self.cache, wanted)
        for name in ("align", "uniform"):
            require(
                0 <= getattr(self, name) <= _MOST, f"distil.{name}", getattr(self, name), f"between 0 and {_MOST:g}"
            )
        for name, most in (("alpha", 100), ("t", 1000), ("temperature", _MOST), ("crd_temperature", 1000)):
            value = getattr(self, name)
            require(0 < value <= most, f"distil.{name}", value, f"positive and at most {most:g}")
        require(1 <= self.width <= 65_536, "distil.width", self.width, "between 1 and 65536")
        require(1 <= self.negatives <= 1_000_000, "distil.negatives", self.negatives, "between 1 and 1000000")
        require(0 <= self.momentum < 1, "distil.momentum", self.momentum, "at least 0 and below 1")
        weights = self.weights
        require(
            any(weight > 0 for weight in weights),
            "distil.label",
            self.label,
            "positive where every other part has the weight 0",
        )
        compares = self.method != "kd"
        wanted = "0 for distil.method 'kd', which compares no features"
        require(compares or not weights.embedding, "distil.embedding", self.embedding, wanted)
        wanted = f"0 for distil.method {self.method!r}, which has no regression: it is of 'srrl'"
        require(self.method == "srrl" or not weights.regression, "distil.regression", self.regression, wanted)
        require_hash("distil.source", self.source)
        possible = self.counts is None or (len(self.counts) > 0 and all(n >= 0 for n in self.counts))
        require(possible, "distil.counts", self.counts, "images of each class, which the run writes itself")

    @property
    def weights(self) -> Weights:
        """The weight of each part of the loss."""
        published = PUBLISHED[self.method]
        given = {name: getattr(self, name) for name in Weights._fields}
        return published._replace(**{name: value for name, value in given.items() if value is not None})

    @property
    def taught(self) -> bool:
        """Whether the teacher takes part in the loss."""
        return any(self.weights[1:])

    @property
    def compares(self) -> Method | None:
        """What takes part in the loss and needs projectors of its own."""
        weights = self.weights
        return self.method if weights.embedding or weights.regression else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilRun(ClassifyRun):
    """A run that trains a classifier beside a teacher.

    Attributes:
      model: the student.
      distil: the teacher, and what is learned from it.
    """

    __pydantic_config__ = STRICT
    task: ClassVar[str] = "distillation"

    distil: DistilConfig = DistilConfig()

    @gathered()
    def __post_init__(self) -> None:
        super().__post_init__()
        settings, augmented = self.distil, altered(self)
        wanted = f"None with {augmented}: the teacher must see each image as the student sees it"
        require(settings.cache is None or augmented is None, "distil.cache", settings.cache, wanted)
        mixed = self.augment.mixup or self.augment.cutmix
        for name in ("mixup", "cutmix"):
            value, possible = getattr(self.augment, name), settings.compares != "crd" or not mixed
            require(possible or not value, f"augment.{name}", value, "0 for 'crd', whose memory is of single images")
        needs_pairs = settings.compares in ("align_uniform", "crd")
        wanted = f"2 or more for distil.method {settings.method!r}, which compares images with each other"
        require(self.train.batch > 1 or not needs_pairs, "train.batch", self.train.batch, wanted)


def student_run(config: DistilRun) -> ClassifyRun:
    """The settings of a plain run of the student: what is left of it when the teacher has gone."""
    fields: dict[str, Any] = {field.name: getattr(config, field.name) for field in dataclasses.fields(ClassifyRun)}
    rules = tuple(rule for rule in config.optimizer.rules if not rule.path.startswith(PROJECTORS))
    fields["optimizer"] = dataclasses.replace(config.optimizer, rules=rules)
    return ClassifyRun(**fields)


def distil_run(config: ClassifyRun, distil: DistilConfig, **changes: Any) -> DistilRun:
    """A run that trains the network of ``config`` beside a teacher."""
    fields: dict[str, Any] = {field.name: getattr(config, field.name) for field in dataclasses.fields(ClassifyRun)}
    return DistilRun(**(fields | changes), distil=distil)
