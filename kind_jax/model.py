"""Model definition, initialisation and evaluation as pure functions of a config and collections."""

from __future__ import annotations

import functools
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from kind_jax import partition
from kind_jax.config import ModelConfig
from kind_jax.config.check import check_seed, is_whole, require
from kind_jax.kinds import load
from kind_jax.nn.gate import ClassGate, Gate
from kind_jax.nn.init import Initializer, ShapesOnly
from kind_jax.nn.route import Route

MODULES = {
    "ModelConfig": "kind_jax.nn.dit:DiT",
    "ViTConfig": "kind_jax.nn.vit:ViT",
    "ResNetConfig": "kind_jax.nn.resnet:ResNet",
    "CNNConfig": "kind_jax.nn.cnn:CNN",
    "ZippedConfig": "kind_jax.nn.zipped:Zipped",
    "EfficientNetConfig": "kind_jax.nn.efficientnet:EfficientNet",
    "CoCaConfig": "kind_jax.nn.coca:CoCa",
}
"""The module of each class of settings of a network, imported when it is needed."""


def module(config: Any, init: Initializer) -> nnx.Module:
    """The network of these settings."""
    name = next(each.__name__ for each in type(config).__mro__ if each.__name__ in MODULES)
    return load(MODULES[name])(config, init=init)


@functools.lru_cache(maxsize=32)
def definition(config: Any) -> tuple[nnx.GraphDef, Any]:
    """The module's definition and its collections as ShapeDtypeStructs; takes no memory.

    Args:
      config: the settings of a network, a :class:`kind_jax.config.ModelConfig` or one of
        :mod:`kind_jax.config.networks`.
    """
    graphdef, collections = partition.split(module(config, ShapesOnly()))
    return graphdef, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), collections)


def init(config: Any, seed: int) -> partition.Collections:
    """Fresh collections as NumPy arrays, the same on every machine; place them with ``jax.device_put``.

    Raises:
      UserError: a seed that is not a whole number from 0 to 2³² - 1, or no settings of a network.
    """
    known = any(each.__name__ in MODULES for each in type(config).__mro__)
    require(known, "config", config, "the settings of a network, like config.model of kj.preset")
    return partition.split(module(config, Initializer(check_seed(seed))))[1]


def apply(
    config: ModelConfig,
    collections: partition.Collections,
    images: Float[Array, "B H W C"],
    t: Float[Array, " B"],
    labels: Int[Array, " B"],
    gate: Gate,
    route: Route | None = None,
) -> Float[Array, "B H W out"]:
    """Evaluate the model; see :meth:`kind_jax.nn.dit.DiT.__call__`. The bank may hold fewer groups than the config."""
    return partition.join(definition(config)[0], collections)(images, t, labels, gate, route)


def seen(
    config: ModelConfig,
    collections: partition.Collections,
    images: Float[Array, "B H W C"],
    t: Float[Array, " B"],
    labels: Int[Array, " B"],
    gate: Gate,
) -> tuple[Float[Array, "B H W out"], dict[str, Float[Array, ...]]]:
    """As :func:`apply`, with the states of the blocks; see :meth:`kind_jax.nn.dit.DiT.seen`."""
    return partition.join(definition(config)[0], collections).seen(images, t, labels, gate)


def class_gate(config: Any, groups: tuple[int, ...] | None = None) -> ClassGate:
    """The gate of each class over a bank that holds ``groups`` in that order; None is all of them.

    Raises:
      UserError: these are no settings of a network with groups, or groups that it does not have.
    """
    known = hasattr(config, "group_of_class") and not isinstance(config, type)
    require(known, "config", config, "the settings of a network whose classes have groups")
    listed = groups is None or (isinstance(groups, tuple | list) and all(map(is_whole, groups)))
    wanted = f"a list of numbers of groups, below {config.num_groups}"
    require(listed and all(0 <= g < config.num_groups for g in groups or ()), "groups", groups, wanted)
    held = tuple(range(config.num_groups)) if groups is None else groups
    row = {group: i for i, group in enumerate(held)}
    return ClassGate(
        row_of_class=tuple(row.get(g, -1) for g in config.group_of_class), groups=len(held), null=config.null_gate
    )
