"""The settings of runs that distil a teacher module by module (OPTIMA, Liang et al. 2023)."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, ClassVar, Literal

from kind_jax.captioning.config import CaptionRun
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import Config, ModelConfig, RunConfig
from kind_jax.config.check import STRICT, gathered, require, require_hash
from kind_jax.config.coca import CoCaConfig
from kind_jax.config.faster import refuse_faster
from kind_jax.config.networks import ViTConfig
from kind_jax.config.roles import Role
from kind_jax.partition import MEMORY, PROJECTORS

POLICIES = ("thompson", "dsts", "greedy", "window", "uniform", "random", "all")
FIXED = "fixed:"
_MOST = 1e6  # of what multiplies a loss in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """A module of the student: the leaves that it is made of, and the states in which it meets the teacher's.

    Attributes:
      name: what it is called in metrics.
      states: which of the network's states, by name: ``image``, ``text`` or ``multimodal`` of CoCa; ``attention`` or
        ``mlp`` of a transformer, the tokens behind these branches of its blocks; ``adaln`` of a DiT.
      leaves: regular expression for the whole paths of its leaves, like ``params/image/.*``.
      blocks: the first of the student's blocks and the one behind the last, counted from 0; None: all of them.
    """

    __pydantic_config__ = STRICT

    name: str
    states: str
    leaves: str
    blocks: tuple[int, int] | None = None

    @gathered()
    def __post_init__(self) -> None:
        possible = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", self.name) is not None
        require(possible, "optima.arms.name", self.name, "up to 40 letters, digits and underscores, a letter first")
        try:
            re.compile(self.leaves)
        except re.error as e:
            require(False, "optima.arms.leaves", self.leaves, f"a regular expression ({e})")
        if self.blocks is not None:
            first, end = self.blocks
            require(0 <= first < end, "optima.arms.blocks", self.blocks, "the first block and a later end")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimaConfig:
    """Who teaches, by which losses, and how a round chooses the module that is distilled.

    The paper's text was not at hand beyond its abstract: whatever that leaves open is a setting, and its default a
    reconstruction (docs/optima.md).

    Attributes:
      teacher: a model of the same kind: a run or an artifact. Where it lies may change while a student is trained, not
        its weights.
      label: weight of the student's own loss.
      prediction: weight of the difference of predictions: of classifiers and captions KL divergence at ``temperature``,
        of diffusion transformers the mean squared difference.
      layer: weight of the chosen module's loss: the mean squared difference of its states and the teacher's.
      temperature: of ``prediction``.
      arms: the modules; none stands for CoCa's three towers, or for attention, MLP and adaLN of a transformer.
      policy: how a round chooses: ``thompson``, discounted Gaussian Thompson sampling; ``dsts`` (Qi et al. 2023);
        ``window``, Thompson sampling on the last ``window`` rewards; ``greedy``, the best mean; ``uniform``, in turn;
        ``random``; ``fixed:NAME``, one module; ``all``, all modules at once, which is plain layerwise distillation.
      round: steps of a round.
      warmup: rounds that each module gets before anything is chosen.
      probe: images on which a round is judged, the same in all: held-out ones where ``data.validation`` holds some out,
        else training images; None: as many as a batch.
      reward: what a module gets for its round: by how much the probe's loss went down, ``relative`` to what it was, or
        ``absolute``.
      reward_loss: of which loss: ``full``, all that plain distillation would minimise; ``task``, the student's own;
        ``modules``, the mean over the modules' losses, each by itself; ``self``, the chosen module's.
      reward_scale: whether rewards are divided by the root mean square of the last 20 (``rms``), without which the
        noise of sampling drowns them, or not (``none``).
      clip: greatest size of a reward once it is scaled.
      gamma: share of its weight that a reward keeps each round.
      kappa, mean, sigma: of the prior, how many rewards it counts for and their mean, and the standard deviation of a
        reward (``thompson``).
      tau: greatest standard deviation (``dsts``).
      window: rewards that count (``window``).
      scope: whether a module's loss trains all that leads to its states (``all``), or its own leaves alone
        (``module``).
      projection: what the student's states go through before they are compared: a ``linear`` map for each layer; or
        nothing (``identity``), where they are as wide as the teacher's.
      init: how the student begins: ``random``, or from the ``teacher``'s layers in the places in which they are
        compared, where widths agree.
      source, network: SHA-256 of the teacher's weights and its settings; written by the run itself.
    """

    __pydantic_config__ = STRICT

    teacher: str | None = None
    label: float = 1.0
    prediction: float = 1.0
    layer: float = 1.0
    temperature: float = 2.0
    arms: tuple[ArmConfig, ...] = ()
    policy: str = "thompson"
    round: int = 20
    warmup: int = 1
    probe: int | None = None
    reward: Literal["relative", "absolute"] = "relative"
    reward_loss: Literal["full", "task", "modules", "self"] = "full"
    reward_scale: Literal["rms", "none"] = "rms"
    clip: float = 3.0
    gamma: float = 0.98
    kappa: float = 1.0
    mean: float = 0.0
    sigma: float = 1.0
    tau: float = 0.5
    window: int = 20
    scope: Literal["all", "module"] = "all"
    projection: Literal["linear", "identity"] = "linear"
    init: Literal["random", "teacher"] = "random"
    source: str | None = None
    network: ModelConfig | CoCaConfig | ViTConfig | None = None

    roles: ClassVar[dict[Role, str]] = {
        Role.TRAINING: "label prediction layer temperature arms policy round warmup probe reward reward_loss "
        "reward_scale clip gamma kappa mean sigma tau window scope projection source network",
        Role.START: "init",
        Role.PLACE: "teacher",
    }

    @gathered()
    def __post_init__(self) -> None:
        for name in ("label", "prediction", "layer"):
            require(0 <= getattr(self, name) <= _MOST, f"optima.{name}", getattr(self, name), f"0 to {_MOST:g}")
        some = not self.label == self.prediction == self.layer == 0
        require(some, "optima.label", self.label, "positive where optima.prediction and optima.layer are 0")
        for name in ("temperature", "clip", "kappa", "sigma", "tau"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"optima.{name}", value, "positive and finite")
        require(math.isfinite(self.mean), "optima.mean", self.mean, "finite")
        require(0 <= self.gamma <= 1, "optima.gamma", self.gamma, "between 0 and 1")
        for name in ("round", "window"):
            require(1 <= getattr(self, name) < 2**31, f"optima.{name}", getattr(self, name), "1 or more")
        require(0 <= self.warmup < 2**31, "optima.warmup", self.warmup, "0 or more")
        require(self.probe is None or 1 <= self.probe < 2**31, "optima.probe", self.probe, "1 or more, or None")
        known = ", ".join(map(repr, POLICIES))
        possible = self.policy in POLICIES or self.policy.startswith(FIXED)
        require(possible, "optima.policy", self.policy, f"one of {known}, or {FIXED}NAME for one module")
        names = [arm.name for arm in self.arms]
        require(len(set(names)) == len(names), "optima.arms", names, "free of repeated names")
        require_hash("optima.source", self.source)


def default_arms(model: Any) -> tuple[ArmConfig, ...]:
    """The modules of a network for which none are given."""
    if isinstance(model, CoCaConfig):
        towers = {"image": "(image|poolers)", "text": "text", "multimodal": "multimodal"}
        return tuple(ArmConfig(name=name, states=name, leaves=rf"params/{path}/.*") for name, path in towers.items())
    branches = {"attention": "(attention|norm_1)", "mlp": "(mlp_in|mlp_out|norm_2)"}
    if isinstance(model, ModelConfig):
        branches |= {"adaln": "adaln"}
    inside = r"[a-z]+/blocks/(\d+/)?"
    return tuple(ArmConfig(name=name, states=name, leaves=f"{inside}{path}/.*") for name, path in branches.items())


class _Optima:
    """What the settings of all runs that distil module by module check."""

    model: Any
    optima: OptimaConfig
    train: Any

    def _check(self) -> None:
        names = [arm.name for arm in self.optima.arms or default_arms(self.model)]
        policy = self.optima.policy
        if policy.startswith(FIXED):
            wanted = f"{FIXED} and one of {', '.join(names)}"
            require(policy.removeprefix(FIXED) in names, "optima.policy", policy, wanted)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierOptimaRun(ClassifyRun, _Optima):
    """A run that distils a vision transformer module by module.

    Attributes:
      model: the student.
      optima: the teacher, and how its modules are chosen.
    """

    __pydantic_config__ = STRICT
    task: ClassVar[str] = "classification-optima"

    optima: OptimaConfig = OptimaConfig()

    @gathered()
    def __post_init__(self) -> None:
        super().__post_init__()
        vit = isinstance(self.model, ViTConfig)
        require(vit, "model.network", self.model.network, "'vit' where a student is distilled module by module")
        self._check()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionOptimaRun(Config, _Optima):
    """A run that distils a diffusion transformer module by module.

    Attributes:
      model: the student.
      optima: the teacher, and how its modules are chosen.
    """

    __pydantic_config__ = STRICT
    task: ClassVar[str] = "diffusion-optima"

    optima: OptimaConfig = OptimaConfig()

    @gathered()
    def __post_init__(self) -> None:
        super().__post_init__()
        method = self.transfer.method
        require(method == "none", "transfer.method", method, "'none' where a student is distilled module by module")
        refuse_faster(self, "where a student is distilled module by module")
        self._check()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionOptimaRun(CaptionRun, _Optima):
    """A run that distils CoCa module by module.

    Attributes:
      model: the student.
      optima: the teacher, and how its modules are chosen.
    """

    __pydantic_config__ = STRICT
    task: ClassVar[str] = "captioning-optima"

    optima: OptimaConfig = OptimaConfig()

    @gathered()
    def __post_init__(self) -> None:
        super().__post_init__()
        self._check()


PLAIN: dict[type, type[RunConfig]] = {
    ClassifierOptimaRun: ClassifyRun, DiffusionOptimaRun: Config, CaptionOptimaRun: CaptionRun
}  # fmt: skip
"""For each kind the one that trains the student without a teacher."""


def student_run(config: Any) -> Any:
    """The settings of a plain run of the student: what is left of it when the teacher has gone."""
    kind = PLAIN[type(config)]
    fields: dict[str, Any] = {field.name: getattr(config, field.name) for field in dataclasses.fields(kind)}
    beside = (PROJECTORS, MEMORY)
    rules = tuple(rule for rule in config.optimizer.rules if not rule.path.startswith(beside))
    return kind(**(fields | {"optimizer": dataclasses.replace(config.optimizer, rules=rules)}))


def optima_run(config: Any, optima: OptimaConfig) -> Any:
    """A run that trains the model of a plain ``config`` beside a teacher."""
    kind = next(kind for kind, plain in PLAIN.items() if plain is type(config))
    return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)}, optima=optima)
