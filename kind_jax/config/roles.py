"""What each setting is for, and the one comparison of settings.

Every field has exactly one role, in the table below. A verb that compares two configs says which roles must agree, and
so a new field is compared wherever it has to be, once it has a role; a test refuses a field without one.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from kind_jax.config.diffusion import DiffusionConfig, SamplerConfig
from kind_jax.config.factored import FactorConfig
from kind_jax.config.faster import GuidanceConfig, RoutingConfig
from kind_jax.config.model import ModelConfig
from kind_jax.config.run import Config, RunConfig
from kind_jax.config.training import CollectionConfig, DataConfig, MeshConfig, OptimizerConfig, TrainConfig
from kind_jax.config.transfer import TransferConfig


class Role(enum.Enum):
    """What a setting decides."""

    WEIGHTS = "the shapes of the weights that all classes share, and what the weights mean"
    TAILORS = "the shapes of a group's own weights"
    CLASSES = "which classes there are, how they are grouped, and a bound on what all of them own"
    IMAGES = "the size of the images; the same weights serve any"
    START = "how the first weights are drawn"
    NULL = "what the null class switches on"
    TIMES = "which noise levels are trained how often"
    TRAINING = "everything else that training depends on: data, losses, rates, seeds, what is frozen"
    RATES = "how large steps are, and how that changes as training goes on"
    LENGTH = "how long training goes on"
    PRECISION = "in which precision the model is computed"
    ROUNDING = "how the model is computed, which changes speed, memory and the last bits of a result"
    SPEED = "speed and memory alone; not a bit of any result"
    PLACE = "where things lie: folders and devices"
    UPKEEP = "what is logged, saved and verified, and which faults are put up with"
    SAMPLING = "how samples are drawn, unless told otherwise then"


# A role for every field; the class of the field, the role, the names.
_ROLES: dict[type, dict[Role, str]] = {
    ModelConfig: {
        Role.WEIGHTS: "channels patch width depth heads mlp_ratio label_embedding learn_sigma time_frequencies "
        "mlp_norm_eps",
        Role.IMAGES: "size",
        Role.CLASSES: "num_classes groups",
        Role.NULL: "null_gate",
        Role.PRECISION: "dtype",
        Role.ROUNDING: "scan_unroll remat contraction",
    },
    FactorConfig: {
        Role.WEIGHTS: "projections learngenes ranks",
        Role.TAILORS: "tailors",
        Role.CLASSES: "rank",
        Role.START: "energy",
    },
    DiffusionConfig: {Role.WEIGHTS: "process schedule prediction train_steps", Role.TIMES: "times"},
    SamplerConfig: {Role.SAMPLING: "method steps guidance guidance_channels eta"},
    DataConfig: {
        Role.TRAINING: "source name classes protocol seed flip size channels held_out validation only fraction "
        "mix_ratio latent_scale per_class",
        Role.PLACE: "path vae mix",
        Role.SPEED: "workers",
        Role.UPKEEP: "skip_bad",
    },
    OptimizerConfig: {
        Role.TRAINING: "method b1 b2 eps momentum nesterov clip lazy_tailors rules",
        Role.RATES: "learning_rate schedule epoch warmup warmup_start minimum",
    },
    CollectionConfig: {Role.TRAINING: "weight_decay freeze thaw", Role.RATES: "learning_rate"},
    MeshConfig: {Role.PLACE: "data fsdp tensor"},
    TrainConfig: {
        Role.TRAINING: "batch accumulate null embedding_dropout seed ema",
        Role.LENGTH: "steps",
        Role.UPKEEP: "log_every checkpoint_every keep verify skip_nonfinite sample_every profile tensorboard wandb",
    },
    TransferConfig: {Role.TRAINING: "method thaw tailors rank scale block projections layers source"},
    RoutingConfig: {Role.TRAINING: "rate first last"},
    GuidanceConfig: {Role.TRAINING: "scale start until"},
}

RESUME = frozenset(Role) - {Role.ROUNDING, Role.SPEED, Role.PLACE, Role.UPKEEP, Role.SAMPLING}
"""What must agree for a run to go on; LENGTH too, as a schedule may depend on it."""

EXTEND = RESUME - {Role.LENGTH, Role.RATES}
"""What must agree for a run to go on as a longer one, or at other rates."""

WHOLE = frozenset({Role.WEIGHTS, Role.TAILORS, Role.CLASSES, Role.IMAGES, Role.START})
"""What must agree for training to go on with a whole model, classes and all."""

TRANSFER = frozenset({Role.WEIGHTS, Role.TIMES})
"""What must agree for other classes to begin from a model's shared weights."""

JOIN = frozenset({Role.WEIGHTS, Role.TAILORS, Role.IMAGES, Role.NULL, Role.TIMES})
"""What must agree for the classes of two models to live in one."""

COMPUTED = frozenset({Role.PRECISION, Role.ROUNDING})
"""How a model is computed, not what it is."""


class Difference(NamedTuple):
    """A setting that has two values; the text says how it changed, like ``train.batch was 8, now 16``."""

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        before, now = repr(self.before), repr(self.now)
        readable = max(len(before), len(now)) <= 60
        return f"{self.name} was {before}, now {now}" if readable else f"{self.name} differs"


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


def role_of(owner: type, field: str) -> Role:
    """The role of a field of a class of settings.

    The settings of other kinds of runs have their roles in a class attribute ``roles`` of their own.

    Raises:
      LookupError: it has none, or several.
    """
    found = [role for role, names in _of(owner).items() for name in names.split() if name == field]
    if len(found) != 1:
        raise LookupError(f"{owner.__name__}.{field} must have one role in config/roles.py, but it has {len(found)}.")
    return found[0]


def _of(owner: type) -> Mapping[Role, str]:
    return _ROLES.get(owner) or getattr(owner, "roles", {})


def roles(config: Any, prefix: str = "") -> dict[str, Role]:
    """The role of every setting of a config by its dotted name, in order."""
    found: dict[str, Role] = {}
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= roles(value, f"{name}.")
        else:
            found[name] = role_of(type(config), field.name)
    return found


def differences(before: Any, now: Any) -> list[Difference]:
    """Where two trees (nested configs, or mappings) have other values under a dotted name, or only one has any."""
    old, new = _leaves(before), _leaves(now)
    pairs = ((name, old.get(name, ABSENT), new.get(name, ABSENT)) for name in {**old, **new})
    return [Difference(*each) for each in pairs if each[1] != each[2]]


def compare(before: RunConfig, now: RunConfig, agree: Collection[Role]) -> list[Difference]:
    """The settings with a role in ``agree`` that differ between two configs.

    Two ways to write one thing do not differ: a size and the None that stands for it, and projections in another order.
    """
    role, old, new = roles(before) | roles(now), _leaves(_spelt_out(before)), _leaves(_spelt_out(now))
    found = [Difference(name, old.get(name, ABSENT), new.get(name, ABSENT)) for name, _, _ in differences(before, now)]
    return [each for each in found if role[each.name] in agree and each.before != each.now]


def settings_with(owner: type, agree: Collection[Role]) -> tuple[str, ...]:
    """The fields of a class of settings that have a role in ``agree``, those of nested ones left out."""
    names = {name: role for role, found in _of(owner).items() for name in found.split()}
    return tuple(f.name for f in dataclasses.fields(owner) if names.get(f.name) in agree)


def _leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        items = dict(tree)
    else:
        items = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
    flat: dict[str, Any] = {}
    for name, value in items.items():
        nested = isinstance(value, Mapping) or dataclasses.is_dataclass(value)
        flat |= _leaves(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _spelt_out(config: RunConfig) -> RunConfig:
    """``config`` with the sizes that None stands for; a model without factored weights has none."""
    if not isinstance(config, Config):
        return config
    model = config.model
    some = bool(model.factor.projections)
    factor = dataclasses.replace(
        model.factor,
        projections=tuple(sorted(model.factor.projections)),
        learngenes=model.learngenes if some else None,
        tailors=model.tailors if some else None,
    )
    return dataclasses.replace(config, model=dataclasses.replace(model, factor=factor))
