"""Where a network is cut into modules, and what each module holds.

A transformer is cut between any two of its blocks: what crosses a cut is the residual stream. A ResNet is cut where a
stage ends. The first module holds everything before the blocks, the last everything behind them, so that every leaf
belongs to exactly one module. A part's leaves have the names that they have in a network that is nothing but it, so
that a module does not depend on its place: settings by path, like ``optimizer.rules``, fit all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import partition
from kind_jax.config import ModelConfig
from kind_jax.config.check import is_whole, require
from kind_jax.config.networks import ResNetConfig, ViTConfig
from kind_jax.errors import UserError
from kind_jax.nn.stack import DEPTH_AXIS
from kind_jax.partition import COLLECTIONS, Collections

CONDITION = ("time_embed", "label_embed")
"""What every block of a diffusion transformer reads beside the residual stream: it crosses every cut as it is."""

_BEHIND: dict[type, tuple[str, ...]] = {ViTConfig: ("norm", "head"), ModelConfig: ("final",), ResNetConfig: ("head",)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagedViT(ViTConfig):
    """A vision transformer whose modules are stacks of their own; ``still``: those without stochastic depth."""

    stacks: tuple[int, ...] = ()  # pyright: ignore[reportIncompatibleMethodOverride]
    still: tuple[int, ...] = ()

    @property
    def drop_rates(self) -> tuple[float, ...]:
        module = [k for k, depth in enumerate(self.stacks) for _ in range(depth)]
        return tuple(0.0 if k in self.still else r for k, r in zip(module, super().drop_rates, strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagedDiT(ModelConfig):
    """A diffusion transformer whose modules are stacks of their own."""

    stacks: tuple[int, ...] = ()  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagedResNet(ResNetConfig):
    """A residual network some of whose stages do not train."""

    settled_stages: tuple[int, ...] = ()  # pyright: ignore[reportIncompatibleMethodOverride]


_STAGED: dict[type, type] = {ViTConfig: StagedViT, ModelConfig: StagedDiT, ResNetConfig: StagedResNet}


def by_stages(network: Any) -> TypeGuard[ResNetConfig]:
    """Whether a network can be cut at its stages alone."""
    return isinstance(network, ResNetConfig)


def blocks(network: Any) -> int:
    """Blocks of a network."""
    return sum(network.blocks) if by_stages(network) else network.depth


def check_depths(network: Any, depths: Sequence[int], name: str = "depths") -> None:
    """Refuse a network that cannot be cut, or not into modules of these depths.

    Raises:
      UserError: naming what is wrong.
    """
    if _base(network) is None:
        raise UserError(
            f"a {getattr(network, 'network', type(network).__name__)} cannot be divided into modules; a vision "
            "transformer, a diffusion transformer and a ResNet can."
        )
    if isinstance(network, ModelConfig) and network.factor.ranks is not None:
        raise UserError("model.factor.ranks is given, but a composed model cannot be divided: divide the one it is of.")
    given = isinstance(depths, Sequence) and not isinstance(depths, str)
    possible = given and bool(depths) and all(is_whole(n) and n >= 1 for n in depths)
    require(possible, name, depths, "the number of blocks of each module, each 1 or more")
    depths = tuple(depths)
    if by_stages(network):
        require(depths == network.blocks, name, depths, f"the blocks of the stages of the network: {network.blocks}")
    else:
        wanted = f"numbers that add up to model.depth, which is {network.depth}"
        require(sum(depths) == network.depth, name, depths, wanted)


def resized(network: Any, depths: Sequence[int]) -> Any:
    """``network`` with other numbers of blocks in its modules."""
    if not by_stages(network):
        return dataclasses.replace(network, depth=sum(depths))
    usual = dataclasses.replace(network, stages=None)
    return usual if usual.blocks == tuple(depths) else dataclasses.replace(network, stages=tuple(depths))


def staged(network: Any, depths: Sequence[int], trained: int, *, frozen_paths: bool) -> Any:
    """The network of these modules, held so that all but the one that is ``trained`` can stay out of the gradient."""
    base, others = _base(network), tuple(k for k in range(len(depths)) if k != trained)
    assert base is not None
    found = resized(network, depths)
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(base)}
    if base is ResNetConfig:
        return StagedResNet(**fields, settled_stages=others)
    if base is ViTConfig:
        return StagedViT(**fields, stacks=tuple(depths), still=() if frozen_paths else others)
    return StagedDiT(**fields, stacks=tuple(depths))


def take(network: Any, collections: Collections, depths: Sequence[int], index: int) -> Collections:
    """What module ``index`` holds of the collections (arrays or ShapeDtypeStructs) of a network of these depths."""
    begin, last = sum(depths[:index]), len(depths) - 1
    base = _base(network)
    assert base is not None
    behind = _BEHIND[base]
    found: Collections = {name: {} for name in COLLECTIONS}
    for name, tree in collections.items():
        kept = {}
        for path, leaf in partition.flatten(tree).items():
            top, _, rest = path.partition("/")
            if top == "blocks":
                kept[path] = _cut(leaf, DEPTH_AXIS[name], begin, depths[index])
            elif top == "stages":
                if int(rest.partition("/")[0]) == index:
                    kept[path] = leaf
            elif index == (last if top in behind else 0):
                kept[path] = leaf
        found[name] = partition.unflatten(kept)
    return found


def put(parts: Sequence[Collections]) -> Collections:
    """The inverse of :func:`take` for all modules in order: the collections of the whole network."""
    found: Collections = {}
    for name in parts[0]:
        leaves: dict[str, list[Any]] = {}
        for part in parts:
            for path, leaf in partition.flatten(part[name]).items():
                leaves.setdefault(path, []).append(leaf)
        joined = {p: _join(each, DEPTH_AXIS.get(name, 0)) for p, each in leaves.items()}
        found[name] = partition.unflatten(joined)
    return found


def named(network: Any, part: Collections, index: int, count: int) -> Collections:
    """A part of ``count`` under the names that its leaves have in the network that :func:`staged` describes."""
    if by_stages(network) or count == 1:
        return part

    def of(path: str) -> str:
        return f"blocks/{index}/{path.removeprefix('blocks/')}" if path.startswith("blocks/") else path

    return {
        name: partition.unflatten({of(path): leaf for path, leaf in partition.flatten(tree).items()})
        for name, tree in part.items()
    }


def repeated(part: Collections, depth: int) -> Collections:
    """A part of a transformer with ``depth`` blocks, each of its own several times in a row."""

    def of(name: str, path: str, leaf: Any) -> Any:
        if not path.startswith("blocks/"):
            return leaf
        axis = DEPTH_AXIS[name]
        return np.take(np.asarray(leaf), np.arange(depth) * leaf.shape[axis] // depth, axis)

    return {
        name: partition.unflatten({path: of(name, path, leaf) for path, leaf in partition.flatten(tree).items()})
        for name, tree in part.items()
    }


def _base(network: Any) -> type | None:
    return next((kind for kind in _BEHIND if isinstance(network, kind)), None)


def _cut(leaf: Any, axis: int, begin: int, count: int) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((*leaf.shape[:axis], count, *leaf.shape[axis + 1 :]), leaf.dtype)
    return leaf[(slice(None),) * axis + (slice(begin, begin + count),)]


def _join(leaves: list[Any], axis: int) -> Any:
    if len(leaves) == 1:
        return leaves[0]
    if isinstance(leaves[0], jax.ShapeDtypeStruct):
        shape, count = leaves[0].shape, sum(leaf.shape[axis] for leaf in leaves)
        return jax.ShapeDtypeStruct((*shape[:axis], count, *shape[axis + 1 :]), leaves[0].dtype)
    numpy = jnp if any(isinstance(leaf, jax.Array) for leaf in leaves) else np
    return numpy.concatenate([numpy.asarray(leaf) for leaf in leaves], axis)
