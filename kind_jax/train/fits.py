"""Whether a run fits its machine, found out before anything large is made."""

from __future__ import annotations

import math
import os
from typing import Any

import jax
from jax.sharding import Mesh

from kind_jax.errors import UserError
from kind_jax.train import sharding
from kind_jax.train.freeze import moving
from kind_jax.train.state import TrainState
from kind_jax.train.task import Task


def check_memory(task: Task, shapes: TrainState, mesh: Mesh) -> None:
    """Refuse a run whose state and batch alone, without a single activation, are larger than the memory.

    Raises:
      UserError: naming both sizes.
    """
    state = jax.tree.map(_share, shapes, sharding.shard_like(shapes, mesh, task.rules))
    trained = moving(task.config.optimizer, shapes.collections)
    gradients = sum(jax.tree.leaves(jax.tree.map(_share, trained, sharding.shard_like(trained, mesh, task.rules))))
    fixed = task.fixed_shapes()
    others = sum(jax.tree.leaves(jax.tree.map(_share, fixed, sharding.shard_like(fixed, mesh, task.rules))))
    records = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in task.batch().values())
    # A batch and what is drawn for it on the devices, and the batch once more on the host.
    devices = mesh.size // jax.process_count()
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    needed = sum(jax.tree.leaves(state)) + others + gradients + 2 * records // ways
    memory = _memory(mesh)
    on_host = mesh.devices.flat[0].platform == "cpu"  # whose devices share the memory of the machine
    needed = needed * devices + records if on_host else needed
    if needed > memory:
        where = "this machine" if on_host else "every device"
        raise UserError(
            f"the state and one batch take {_size(needed)}, but {where} has {_size(memory)}: lower model.width, "
            "model.depth, model.num_classes or train.batch, or split the model over more devices with mesh.fsdp."
        )


def _share(leaf: Any, where: jax.sharding.NamedSharding) -> int:
    return math.prod(where.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _memory(mesh: Mesh) -> int:
    """Bytes of one device, or of the machine."""
    device = mesh.local_devices[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats.get("bytes_limit", 1 << 62)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count < 1e12 else f"{count / 1e12:,.1f} TB"
