"""Modules of a network, and the three things that are done with them, as pure functions on collections.

Deep Model Assembling (Ni et al. 2022, arXiv 2212.04129; later *Deep Incubation*, ICCV 2023): a deep network is divided
into modules, each is trained alone inside a shallow meta model that stays as it is, and they are put together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.core import Tracer

from kind_jax import finite, model, partition
from kind_jax.assembling import cuts
from kind_jax.config import RunConfig
from kind_jax.config.check import is_whole, require
from kind_jax.config.roles import Difference, Role, compare, settings_with
from kind_jax.errors import UserError
from kind_jax.partition import Collections

SHARED = (Role.WEIGHTS, Role.TAILORS, Role.CLASSES, Role.IMAGES, Role.TIMES)
"""What must agree for modules to belong together."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Module:
    """One module, with everything that says what it belongs to.

    Attributes:
      network: settings of the whole network that it is a part of: width, heads, patch, classes, eps, biases and all.
      depths: blocks of each module of that network.
      index: which of them it is, counted from 0.
      collections: its weights. Blocks are counted from 0 in every module: ``params/blocks/mlp_in/kernel`` is
        [depth, d_in, d_out].
      source: SHA-256 of the meta model's weights that it was trained in, or of the weights that it was divided from.
      name: what messages call it; empty for its index.
    """

    network: Any
    depths: tuple[int, ...]
    index: int
    collections: Collections
    source: str
    name: str = ""

    def __post_init__(self) -> None:
        cuts.check_depths(self.network, self.depths, "the depths of the module")
        possible = is_whole(self.index) and 0 <= self.index < len(self.depths)
        require(possible, "the index of the module", self.index, f"a whole number from 0 to {len(self.depths) - 1}")

    @property
    def depth(self) -> int:
        """Its blocks."""
        return self.depths[self.index]

    def __str__(self) -> str:
        return self.name or f"module {self.index}"

    def __repr__(self) -> str:
        count = sum(leaf.size for leaf in jax.tree.leaves(self.collections))
        return f"<Module {self.index} of {len(self.depths)}: {self.depth} blocks, {count:,} parameters>"


class Whole(NamedTuple):
    """A network and its weights.

    Attributes:
      network: its settings, for :mod:`kind_jax.model` and :mod:`kind_jax.classifying.network`.
      collections: learngenes, tailors and params; stats where it has some.
    """

    network: Any
    collections: Collections


def divide(network: Any, collections: Collections, depths: Sequence[int]) -> list[Module]:
    """Cut a network into modules; :func:`assemble` is the inverse, bit for bit.

    Args:
      network: a ``ViTConfig``, ``ResNetConfig`` or ``ModelConfig``.
      collections: its weights; not copied.
      depths: blocks of each module, in order; of a ResNet, those of its stages.

    Returns:
      The modules in order. Their ``source`` is the SHA-256 of ``collections``; empty while JAX traces.

    Raises:
      UserError: the network cannot be cut like that, or the weights are not its.
    """
    cuts.check_depths(network, depths)
    check_weights(network, collections, "the model")
    depths = tuple(int(n) for n in depths)
    source = partition.fingerprint(collections) if _concrete(collections) else ""
    return [
        Module(
            network=network, depths=depths, index=k, collections=cuts.take(network, collections, depths, k),
            source=source,
        )
        for k in range(len(depths))
    ]  # fmt: skip


def replace(meta: Iterable[Module], module: Module) -> Whole:
    """The hybrid of a meta model and one module of the target: the meta model with that module in place of its own.

    Args:
      meta: all modules of the meta model, in order.
      module: of a network that differs from the meta model in the depths of its modules alone; any source.

    Raises:
      UserError: the two do not fit; the setting is named.
    """
    meta = list(meta)
    _check_set(meta)
    if len(module.depths) != len(meta):
        raise UserError(
            f"{module} is one of {len(module.depths)} modules, but the meta model has {len(meta)}: they must be as "
            "many."
        )
    _check_alike(meta[0], module)
    check_module(module)
    parts = [each.collections for each in meta]
    parts[module.index] = module.collections
    depths = [each.depth for each in meta]
    depths[module.index] = module.depth
    return Whole(cuts.resized(module.network, depths), cuts.put(parts))


def assemble(modules: Iterable[Module]) -> Whole:
    """Chain modules into the network that they are modules of; the inverse of :func:`divide`.

    Args:
      modules: all of them, in order.

    Raises:
      UserError: one is missing, there twice, out of order, of another network or another meta model, or its weights are
        not those of such a module; it is named.
    """
    modules = list(modules)
    _check_set(modules)
    return Whole(modules[0].network, cuts.put([each.collections for each in modules]))


def _check_set(modules: Sequence[Module]) -> None:
    """Refuse modules that are not all of one network's, in order.

    Raises:
      UserError: see :func:`assemble`.
    """
    _check_complete(modules)
    for each in modules:
        _check_alike(modules[0], each)
        if each.depths != modules[0].depths:
            raise UserError(
                f"{each} is of a network divided into {each.depths}, but {modules[0]} is of one divided into "
                f"{modules[0].depths}: they do not belong together."
            )
        if each.source != modules[0].source:
            raise UserError(
                f"{each} was trained in the meta model with SHA-256 {each.source[:12]}…, but {modules[0]} in "
                f"{modules[0].source[:12]}…: modules of different meta models do not fit each other."
            )
        check_module(each)


def shapes(network: Any, depths: Sequence[int], index: int) -> Collections:
    """What a module holds, as ShapeDtypeStructs; takes no memory."""
    around = [n if k == index else 1 for k, n in enumerate(depths)]  # a module knows nothing of its neighbours' depths
    shallow = cuts.resized(network, around)
    return cuts.take(shallow, model.definition(shallow)[1], around, index)


def check_module(module: Module) -> None:
    """Refuse a module whose weights are not those of its place.

    Raises:
      UserError: naming the first leaf that differs.
    """
    _check_leaves(module.collections, shapes(module.network, module.depths, module.index), str(module))


def check_weights(network: Any, collections: Collections, origin: str) -> None:
    """Refuse weights that are not those of a network.

    Raises:
      UserError: naming the first leaf that differs.
    """
    _check_leaves(collections, model.definition(network)[1], origin)


def _check_leaves(collections: Collections, wanted: Collections, origin: str) -> None:
    require(isinstance(collections, Mapping), f"the collections of {origin}", collections, "dictionaries of arrays")
    for name in collections:
        if name not in wanted:
            raise UserError(f"{origin} has the collection {name!r}, but it must have {', '.join(wanted)} alone.")
    for name, tree in wanted.items():
        partition.check_like(collections.get(name, {}), tree, origin)
    if _concrete(collections):
        finite.check(collections, origin)


def _concrete(collections: Collections) -> bool:
    """Whether the weights have values: while JAX traces, for a gradient say, they have none."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(collections))


def _check_complete(modules: Sequence[Module]) -> None:
    if not modules:
        raise UserError("there are no modules, but there must be one or more.")
    count, found = len(modules[0].depths), [each.index for each in modules]
    twice = next((i for i in found if found.count(i) > 1), None)
    if twice is not None:
        names = " and ".join(str(each) for each in modules if each.index == twice)
        raise UserError(f"module {twice} is there twice ({names}), but each must be there once.")
    for i in range(count):
        if i not in found:
            raise UserError(f"module {i} of {count} is missing; there are {', '.join(map(str, found))}.")
    if found != list(range(count)):
        extra = [i for i in found if i >= count]
        if extra:
            raise UserError(f"there is a module {extra[0]}, but {modules[0]} is of a network of {count} modules.")
        order = ", ".join(map(str, found))
        raise UserError(f"the modules are given in the order {order}, but they must be in order, 0 to {count - 1}.")


def _check_alike(first: Module, other: Module) -> None:
    """The settings that modules share, but the depth of the whole, which follows from theirs."""
    if type(first.network) is not type(other.network):
        raise UserError(
            f"{other} is of a {type(other.network).__name__}, but {first} is of a {type(first.network).__name__}."
        )
    for name, wanted, found in differences(first.network, other.network):
        raise UserError(f"model.{name} of {other} is {found!r:.200}, but that of {first} is {wanted!r:.200}.")


def other_settings(first: RunConfig, other: RunConfig) -> list[Difference]:
    """Settings beside the network's, like the diffusion process, that two runs of whole networks must share."""
    return [each for each in compare(first, other, SHARED) if not each.name.startswith("model.")]


def differences(first: Any, other: Any) -> list[tuple[str, Any, Any]]:
    """Settings of two networks of one type that their modules must share, and differ in."""
    names = [n for n in settings_with(type(first), SHARED) if n not in ("depth", "stages")]
    found = [(n, getattr(first, n), getattr(other, n)) for n in names]
    if hasattr(first, "factor"):
        ours, theirs = (tuple(sorted(each.factor.projections)) for each in (first, other))
        found.append(("factor.projections", ours, theirs))
        if ours and theirs:
            found += [(f"factor.{n}", getattr(first, n), getattr(other, n)) for n in ("learngenes", "tailors")]
    return [each for each in found if each[1] != each[2]]
