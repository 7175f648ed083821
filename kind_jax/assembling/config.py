"""The settings of a run that trains one module of a network."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

from kind_jax.assembling import cuts
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import Config
from kind_jax.config.check import STRICT, gathered, require, require_hash
from kind_jax.config.faster import refuse_faster, unhurried
from kind_jax.config.roles import Role
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModuleConfig:
    """Which module of the network ``model`` is trained, and the meta model that surrounds it.

    Attributes:
      depths: blocks of each module, in order, like 6 6 6 6; of a ResNet, those of its stages.
      index: the module that is trained, counted from 0.
      meta: the meta model: a run or an artifact. Where it lies may change while a module is trained, not its weights.
      meta_depths: blocks that the meta model has in place of each module; None: one.
      init: how the module begins: ``random``, as published; or from the blocks of the ``meta`` model in its place, each
        repeated (for transformers).
      frozen_paths: whether stochastic depth drops branches in the frozen modules too, as in the published code. Their
        rates count either way: a block's rate follows from its place among all blocks.
      decay_tokens: whether class token and positions decay as the patch embedding's kernel does, as in the published
        code, which exempts them in its other phases.
      frozen: whether the frozen modules are ``sharded`` as the trained one is, or ``replicated`` on every device, which
        spares their gathering.
      source: SHA-256 of the meta model's weights; written by the run itself. Of a module that a finished model was
        divided into, of that model's.
    """

    __pydantic_config__ = STRICT

    depths: tuple[int, ...] = ()
    index: int | None = None
    meta: str | None = None
    meta_depths: tuple[int, ...] | None = None
    init: Literal["random", "meta"] = "random"
    frozen_paths: bool = False
    decay_tokens: bool = False
    frozen: Literal["sharded", "replicated"] = "sharded"
    source: str | None = None

    roles: ClassVar[dict[Role, str]] = {
        Role.WEIGHTS: "depths index meta_depths",
        Role.START: "init",
        Role.TRAINING: "source frozen_paths decay_tokens",
        Role.ROUNDING: "frozen",
        Role.PLACE: "meta",
    }

    @gathered()
    def __post_init__(self) -> None:
        count = len(self.depths)
        possible = count >= 1 and all(n >= 1 for n in self.depths)
        require(possible, "module.depths", self.depths, "the number of blocks of each module, each 1 or more")
        wanted = f"between 0 and {count - 1}, as module.depths has {count} modules"
        require(self.index is None or 0 <= self.index < count, "module.index", self.index, wanted)
        given = self.meta_depths
        possible = given is None or (len(given) == count and all(n >= 1 for n in given))
        wanted = f"1 or more blocks for each of the {count} modules of module.depths"
        require(possible, "module.meta_depths", given, wanted)
        require_hash("module.source", self.source)

    @property
    def place(self) -> int:
        """The module that is trained.

        Raises:
          UserError: it is not said.
        """
        if self.index is None:
            raise UserError(
                f"module.index is missing, but it must say which module to train, 0 to {len(self.depths) - 1}."
            )
        return self.index

    @property
    def around(self) -> tuple[int, ...]:
        """Blocks of the meta model in place of each module."""
        return (1,) * len(self.depths) if self.meta_depths is None else self.meta_depths

    @property
    def hybrid(self) -> tuple[int, ...]:
        """Blocks of each module of the hybrid: the meta model's, but for the one that is trained."""
        return tuple(self.depths[k] if k == self.place else n for k, n in enumerate(self.around))


def _check(config: Any) -> None:
    cuts.check_depths(config.model, config.module.depths, "module.depths")
    possible = config.module.init == "random" or not cuts.by_stages(config.model)
    require(possible, "module.init", config.module.init, "'random' for a network whose blocks have several shapes")
    require(config.data.per_class is None, "data.per_class", config.data.per_class, "None for a module")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierModuleRun(ClassifyRun):
    """A run that trains one module of a classifier.

    Attributes:
      model: the whole network that the module is a part of.
      module: which module, and what surrounds it.
    """

    __pydantic_config__ = STRICT
    task: ClassVar[str] = "classification-module"

    module: ModuleConfig = ModuleConfig(depths=(3, 3))

    @gathered()
    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)
        require(self.head == "keep", "head", self.head, "'keep', as the last module trains a head of its own")
        require(self.source is None, "source", self.source, "None: a module begins inside module.meta")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionModuleRun(Config):
    """A run that trains one module of a diffusion transformer.

    Attributes:
      model: the whole network that the module is a part of.
      module: which module, and what surrounds it.
    """

    __pydantic_config__ = STRICT
    task: ClassVar[str] = "diffusion-module"

    module: ModuleConfig = ModuleConfig(depths=(14, 14))

    @gathered()
    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)
        require(self.transfer.method == "none", "transfer.method", self.transfer.method, "'none' for a module")
        require(not self.transfer.source, "transfer.source", self.transfer.source, "empty for a module")
        refuse_faster(self, "for a module")


ModuleRun = ClassifierModuleRun | DiffusionModuleRun
WholeRun = ClassifyRun | Config

_MODULE_RUNS: dict[type, type] = {ClassifyRun: ClassifierModuleRun, Config: DiffusionModuleRun}


def whole_run(config: ModuleRun, **changes: Any) -> Any:
    """The settings of the run of the whole network, a :class:`ClassifyRun` or a :class:`Config`."""
    kind = next(whole for whole, module in _MODULE_RUNS.items() if type(config) is module)
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(kind)}
    return kind(**(fields | changes))


def module_run(config: WholeRun, module: ModuleConfig) -> Any:
    """The settings of a module of the network of ``config``, a :data:`ModuleRun`.

    Raises:
      UserError: its network cannot be divided, or not like that.
    """
    kind = _MODULE_RUNS.get(type(config))
    if kind is None:
        raise UserError(f"a run of the kind {config.task!r} cannot be divided into modules.")
    config = unhurried(config) if isinstance(config, Config) else config
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    # How a whole model once began, and what was frozen then, says nothing about its modules.
    if isinstance(config, ClassifyRun):
        fields |= {"source": None, "head": "keep"}
    else:
        fields["transfer"] = type(config.transfer)()
    return kind(**fields, module=module)
