"""A number for every array that follows from all of its values and their places, computed where the array lies.

The manifest proves that the files are as they were written; these sums prove that what arrived on the devices is what
was saved: every leaf was read, none kept its initial value, none was cut or put together wrongly from its shards.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Shaped, UInt32

from kind_jax.errors import UserError


def paths(tree: Any) -> dict[str, Any]:
    """Leaves of any tree by their printed path; optimizer states are tuples of tuples, which Orbax would number."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def sums(tree: Any, what: str) -> dict[str, int]:
    """The sum of every leaf by its path, the same on every host.

    Integer arithmetic, so neither the order of addition nor the sharding makes a difference. Every host sums the
    shards that it holds; only the results travel.

    Raises:
      UserError: a leaf holds NaN or infinity; ``what`` names the tree in the sentence.
    """
    leaves = paths(tree)
    parts = {
        path: [_digest(leaf, s) for s in leaf.addressable_shards if s.replica_id == 0] for path, leaf in leaves.items()
    }
    mine = [[sum(int(sum_) for sum_, _ in found), sum(not finite for _, finite in found)]
            for found in jax.device_get(list(parts.values()))]  # fmt: skip
    # As 32-bit numbers, which is what travels.
    found = np.array(mine, np.uint64).reshape(-1, 2).astype(np.uint32)
    if jax.process_count() > 1:
        found = np.asarray(multihost_utils.process_allgather(found)).sum(axis=0, dtype=np.uint32)
    for path, (_, odd) in zip(leaves, found, strict=True):
        if odd:
            raise UserError(f"{what} holds values in {path} that are not finite.")
    return {path: int(sum_) for path, (sum_, _) in zip(leaves, found, strict=True)}


def check(tree: Any, wanted: Mapping[str, int], origin: str) -> None:
    """Refuse a tree whose leaves are not the ones that were summed.

    Raises:
      UserError: naming the first leaf that differs; ``origin`` names where they were read from.
    """
    for path, sum_ in sums(tree, origin).items():
        if path not in wanted:
            raise UserError(f"{origin} has no checksum of the array {path}.")
        if sum_ != wanted[path]:
            raise UserError(
                f"{origin}: the array {path} did not arrive as it was saved (sum {sum_:#010x}, saved "
                f"{wanted[path]:#010x})."
            )


def _digest(leaf: Array, shard: Any) -> tuple[Any, Any]:
    """Sum of a shard, and whether all of its values are finite."""
    starts = tuple(part.start or 0 for part in shard.index)
    if shard.device.platform == "cpu":
        return on_host(np.asarray(shard.data), starts, leaf.shape)  # saves compiling one program for every shape
    return on_device(shard.data, np.array(starts, np.uint32), leaf.shape)


def _mixed(bits: Any, place: Any) -> Any:
    """As murmur3 ends: multiply, shift and xor, so that two values that change places change the sum."""
    mixed = bits * np.uint32(0xCC9E2D51) + place * np.uint32(0x9E3779B1) + np.uint32(1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    return mixed ^ (mixed >> np.uint32(16))


def _strides(shape: Sequence[int]) -> list[int]:
    """By how much the place of a value in the whole array grows along each axis, modulo 2**32."""
    return [math.prod(shape[axis + 1 :]) % 2**32 for axis in range(len(shape))]


def on_host(
    part: Shaped[np.ndarray, ...], starts: Sequence[int], shape: Sequence[int], chunk: int = 1 << 18
) -> tuple[int, bool]:
    """Sum of the part of an array of ``shape`` that begins at ``starts``."""
    bits = np.ascontiguousarray(part).reshape(part.shape or (1,))
    bits = bits.view(f"u{bits.itemsize}")
    axes = list(zip(starts, _strides(shape), strict=True)) or [(0, 1)]
    rows, sum_ = max(1, chunk * len(bits) // max(bits.size, 1)), 0
    for first in range(0, len(bits), rows):
        block = bits[first : first + rows]
        place = np.zeros((1,) * block.ndim, np.uint32)
        for axis, ((start, stride), size) in enumerate(zip(axes, block.shape, strict=True)):
            along = np.arange(size, dtype=np.uint64) + np.uint64(start + (first if axis == 0 else 0))
            along = (along * np.uint64(stride)).astype(np.uint32)
            place = place + along.reshape([-1 if a == axis else 1 for a in range(block.ndim)])
        sum_ += int(_mixed(block.astype(np.uint32), place).sum(dtype=np.uint64))
    return sum_ % 2**32, not jnp.issubdtype(part.dtype, jnp.inexact) or bool(np.isfinite(part).all())


@functools.partial(jax.jit, static_argnames="shape")
def on_device(
    part: Shaped[Array, ...], starts: UInt32[np.ndarray | Array, " axes"], shape: tuple[int, ...]
) -> tuple[UInt32[Array, ""], Bool[Array, ""]]:
    """The same as :func:`on_host`."""
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[part.dtype.itemsize]
    bits = part if part.dtype == jnp.bool else jax.lax.bitcast_convert_type(part, width)
    place = jnp.zeros(part.shape, jnp.uint32)
    for axis, stride in enumerate(_strides(shape)):
        place += (jax.lax.broadcasted_iota(jnp.uint32, part.shape, axis) + starts[axis]) * jnp.uint32(stride)
    finite = jnp.isfinite(part).all() if jnp.issubdtype(part.dtype, jnp.inexact) else jnp.bool(True)
    return _mixed(bits.astype(jnp.uint32), place).sum(dtype=jnp.uint32), finite
