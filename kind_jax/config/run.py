"""One training run: all settings together, from Python files and saved JSON."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeGuard, TypeVar

import pydantic

from kind_jax.config.check import STRICT, change, check_path, check_type, gathered, plain, require, together
from kind_jax.config.diffusion import DiffusionConfig, SamplerConfig
from kind_jax.config.faster import GuidanceConfig, RoutingConfig
from kind_jax.config.model import ModelConfig
from kind_jax.config.training import DataConfig, MeshConfig, OptimizerConfig, TrainConfig
from kind_jax.config.transfer import TransferConfig
from kind_jax.errors import UserError
from kind_jax.kinds import DEFAULT, KINDS, load
from kind_jax.untrusted import documents
from kind_jax.untrusted.text import printable

C = TypeVar("C", bound="RunConfig")

LIMIT = 64 << 20  # bytes of a saved config; a million classes in groups take ten million


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every training run has, whatever it trains; each kind of run is a subclass.

    Attributes:
      task: name of the kind, see :mod:`kind_jax.kinds`.
    """

    __pydantic_config__ = STRICT
    task: ClassVar[str]

    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    train: TrainConfig = TrainConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A run that trains a diffusion transformer."""

    __pydantic_config__ = STRICT
    task: ClassVar[str] = DEFAULT

    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    sampler: SamplerConfig = SamplerConfig()
    transfer: TransferConfig = TransferConfig()
    routing: RoutingConfig = RoutingConfig()
    guidance: GuidanceConfig = GuidanceConfig()

    @gathered()
    def __post_init__(self) -> None:
        flow = self.diffusion.process == "flow"
        methods = ("euler", "heun") if flow else ("ddpm", "ddim")
        require(
            self.sampler.method in methods,
            "sampler.method",
            self.sampler.method,
            f"{methods[0]!r} or {methods[1]!r} for the {self.diffusion.process} process",
        )
        guided = self.sampler.guidance_channels
        require(
            guided is None or guided <= self.model.channels,
            "sampler.guidance_channels",
            guided,
            f"at most model.channels, which is {self.model.channels}",
        )
        require(
            not (flow and self.model.learn_sigma),
            "model.learn_sigma",
            True,
            "False for the flow process, which has no variance",
        )
        require(
            flow or self.sampler.steps <= self.diffusion.train_steps,
            "sampler.steps",
            self.sampler.steps,
            f"at most diffusion.train_steps, which is {self.diffusion.train_steps}",
        )
        self.routing.check(self.model)
        self.guidance.check(self.model, self.train.null, self.train.steps)


def is_of(config: object, kind: type[C]) -> TypeGuard[C]:
    """Whether ``config`` is of a kind of run, whose settings those of another kind may extend; RunConfig is any."""
    return isinstance(config, kind) and (kind is RunConfig or config.task == kind.task)


@functools.lru_cache
def _adapter(kind: type[RunConfig]) -> pydantic.TypeAdapter:
    return pydantic.TypeAdapter(kind)


def to_json(config: RunConfig) -> str:
    """The config as indented JSON, every field written out, and its kind if that is not diffusion."""
    return _to_json(config)


def _to_json(config: RunConfig, **how: Any) -> str:
    text = _adapter(type(config)).dump_json(config, indent=2, **how).decode()
    return text if config.task == DEFAULT else f'{{\n  "task": {json.dumps(config.task)},{text.removeprefix("{")}'


def from_json(text: str | bytes, origin: str) -> RunConfig:
    """Parse a saved config; ``origin`` names the file in error messages.

    Raises:
      UserError: too long, not JSON, an unknown field or one that is there twice, a wrong type or a forbidden value;
        the field is named.
    """
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if len(data) > LIMIT:
        raise UserError(f"{origin} has {len(data)} bytes, but a config must have at most {LIMIT}.")
    fields = documents.parse(data, origin)  # refuses what pydantic takes: one key twice, of which the last would win
    kind = fields.get("task", DEFAULT) if isinstance(fields, dict) else DEFAULT
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{origin}: task is {printable(repr(kind), 200)}, but it must be one of {', '.join(KINDS)}.")
    if isinstance(fields, dict) and "task" in fields:
        data = json.dumps({name: value for name, value in fields.items() if name != "task"}).encode()
    try:
        with together():
            return _adapter(load(KINDS[kind].config)).validate_json(data)
    except UserError as e:  # of our own checks, whose sentence names the field already
        raise UserError(f"{origin}: {e}") from e
    except pydantic.ValidationError as e:
        first = e.errors()[0]
        field = printable(".".join(str(part) for part in first["loc"])) or "the file"
        raise UserError(f"{origin}: {field}: {first['msg']} (found {first.get('input')!r:.200}).") from e


def load_file(path: str | Path, given: Mapping[str, Any] | None = None) -> RunConfig:
    """Run a Python config file and call its ``get_config()``; config files are code, so only load your own.

    Args:
      path: the file. Where its ``get_config`` takes an argument, as that of configs/images.py does, it gets ``given``.
      given: settings that are decided, by dotted names like ``data.path``; they win over the file's.

    Raises:
      UserError: the file is absent, has no ``get_config``, fails, or returns something else than the config of a run.
    """
    path = check_path(path, "path", "the path of a Python file")
    given = _given(given)
    if not path.is_file():
        raise UserError(f"--config is {str(path)!r}, but no such file exists.")
    spec = importlib.util.spec_from_file_location(f"kind_jax_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config is {str(path)!r}, but it must be a Python file ending in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        with together():
            spec.loader.exec_module(module)
            takes = len(inspect.signature(module.get_config).parameters)
            config = module.get_config(given) if takes else module.get_config()
    except UserError:
        raise
    except (Exception, SystemExit) as e:  # a script that ends the process would pass for a success
        raise UserError(f"--config is {str(path)!r}, but running it failed: {type(e).__name__}: {e}.") from e
    if not isinstance(config, RunConfig) or type(config) is RunConfig:
        raise UserError(
            f"--config is {str(path)!r}, but its get_config() returned {type(config).__name__}, not Config."
        )
    with together():
        config = _with(config, given)
    return read_back(config, str(path))


def read_back(config: RunConfig, origin: str = "config") -> RunConfig:
    """``config`` as it would be read from a saved run: Python checks no types, so what could not be is refused now.

    Raises:
      UserError: naming the setting.
    """
    try:
        text = _to_json(config, warnings=False)
    except ValueError as e:
        raise UserError(f"{origin} has settings that cannot be saved: {e}.") from e
    return from_json(text, origin)


def _given(given: object) -> dict[str, Any]:
    """Settings by their dotted names, those of the data of the types that they must have."""
    possible = given is None or (isinstance(given, Mapping) and all(isinstance(name, str) for name in given))
    require(possible, "given", given, "a dictionary of settings by their dotted names, like {'data.path': 'photos'}")
    found = {name: plain(value) for name, value in (given or {}).items()}  # pyright: ignore[reportAttributeAccessIssue]
    for name, value in found.items():
        if name.startswith("data."):
            check_type(DataConfig, name, value)
    if found.get("data.path") is not None:
        check_path(found["data.path"], "data.path")
    return found


def _with(config: RunConfig, given: Mapping[str, Any]) -> RunConfig:
    """``config`` with settings replaced, all at once, as only some combinations are possible."""
    changes: dict[str, Any] = {}
    for name, value in given.items():
        part, inside = config, changes
        *sections, last = name.split(".")
        for section in (*sections, last):
            if not dataclasses.is_dataclass(part) or section not in {field.name for field in dataclasses.fields(part)}:
                raise UserError(f"a setting is given as {name!r:.200}, but there is none of that name.")
            part = getattr(part, section)
        for section in sections:
            inside = inside.setdefault(section, {})
        inside[last] = value
    return change(config, **changes)
