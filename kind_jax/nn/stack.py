"""Blocks of one form as a single module whose leaves have a depth axis, and a scan over it.

Dimensions: B samples, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from kind_jax import partition
from kind_jax.nn.gate import Gate

DEPTH_AXIS = {partition.LEARNGENES: 0, partition.TAILORS: 1, partition.PARAMS: 0}
"""Where the leaves of stacked blocks have their depth, by collection."""


def stack(make: Callable[[], nnx.Module], depth: int) -> nnx.Module:
    """``depth`` modules as one whose leaves have a depth axis.

    The depth axis comes first, but behind the group axis in tailors: a bank is always sliced by group.
    """
    definitions, layers = zip(*(partition.split(make()) for _ in range(depth)), strict=True)

    def stacked(name: str, axis: int) -> Any:
        return jax.tree.map(lambda *leaves: _pile(leaves, axis), *(layer[name] for layer in layers))

    return partition.join(definitions[0], {name: stacked(name, axis) for name, axis in DEPTH_AXIS.items()})


class Stacks(nnx.Module):
    """Several stacks, one after the other, as attributes "0", "1", ...: each is differentiated, or not, as a whole."""

    def __init__(self, stacks: Sequence[nnx.Module]) -> None:
        self.length = len(stacks)
        for i, each in enumerate(stacks):
            setattr(self, str(i), each)

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, str(i)) for i in range(self.length))


def stacks(make: Callable[[], nnx.Module], depths: Sequence[int]) -> nnx.Module:
    """Blocks of one form as one :func:`stack`, or as :class:`Stacks` where there are several ``depths``."""
    return stack(make, depths[0]) if len(depths) == 1 else Stacks([stack(make, depth) for depth in depths])


def depth_of(blocks: nnx.Module) -> int:
    """Blocks of a :func:`stack`."""
    found = partition.split(blocks)[1]
    return next(leaf.shape[DEPTH_AXIS[name]] for name, tree in found.items() for leaf in jax.tree.leaves(tree))


def between(blocks: nnx.Module, begin: int, end: int) -> nnx.Module:
    """The blocks ``begin`` to ``end`` - 1 of what :func:`stacks` has made; there is at least one."""
    if isinstance(blocks, Stacks):
        found, before = [], 0
        for part in blocks:
            depth = depth_of(part)
            first, last = max(begin - before, 0), min(end - before, depth)
            if first < last:
                found.append(between(part, first, last))
            before += depth
        return Stacks(found)
    graphdef, layers = partition.split(blocks)

    def cut(name: str, axis: int) -> Any:
        return jax.tree.map(lambda a: jax.lax.slice_in_dim(a, begin, end, axis=axis), layers[name])

    return partition.join(graphdef, {name: cut(name, axis) for name, axis in DEPTH_AXIS.items()})


def _pile(leaves: Sequence[np.ndarray], axis: int) -> np.ndarray:
    if leaves[0].size and not any(leaves[0].strides):  # arrays of ShapesOnly stay without memory
        shape = list(leaves[0].shape)
        shape.insert(axis, len(leaves))
        return np.broadcast_to(leaves[0].flat[0], shape)
    return np.stack(leaves, axis)


def only_rows_in_use(tailors: dict, gate: Gate) -> tuple[dict, Gate]:
    """Shrink the bank to the rows that the gate names, so that a step never walks over the whole bank."""
    used = gate.index.size
    if not tailors or used >= jax.tree.leaves(tailors)[0].shape[0]:
        return tailors, gate
    rows = gate.index.reshape(-1)
    return jax.tree.map(lambda a: a[rows], tailors), Gate(jnp.arange(used).reshape(gate.index.shape), gate.weight)


def over_depth(
    blocks: nnx.Module, x: Float[Array, "B T D"], gate: Gate,
    call: Callable[[Any, Array, Gate, Any], tuple[Array, Any]], *, unroll: int, remat: bool, each: Any = None,
) -> tuple[Float[Array, "B T D"], Any]:  # fmt: skip
    """``x`` after all blocks, and what each block lets be seen, with the depth in front.

    Args:
      blocks: what :func:`stacks` has made.
      call: of a block, its input, the gate over what is left of the bank, and what there is for this block alone, its
        output and a tree of arrays to be seen, or None.
      unroll: blocks in one iteration of the scan; 0 is the whole stack.
      remat: whether the backward pass computes each block again instead of keeping its activations.
      each: a tree of arrays with the depth in front, for ``call``.
    """
    if isinstance(blocks, Stacks):
        begin, seen = 0, []
        for part in blocks:
            end = begin + depth_of(part)
            own = jax.tree.map(lambda a, span=slice(begin, end): a[span], each)
            x, found = over_depth(part, x, gate, call, unroll=unroll, remat=remat, each=own)
            seen.append(found)
            begin = end
        return x, jax.tree.map(lambda *parts: jnp.concatenate(parts), *seen)
    graphdef, layers = partition.split(blocks)
    depth = depth_of(blocks)
    bank, gate = only_rows_in_use(layers["tailors"], gate)
    layers["tailors"] = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), bank)

    def body(x: Float[Array, "B T D"], layer: tuple[partition.Collections, Any]) -> tuple[Float[Array, "B T D"], Any]:
        return call(partition.join(graphdef, layer[0]), x, gate, layer[1])

    if remat:
        body = jax.checkpoint(body, prevent_cse=False)
    return jax.lax.scan(body, x, (layers, each), unroll=unroll or depth)
