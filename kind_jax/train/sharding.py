"""Where every array lives: a mesh and a short list of path rules (the idea of big_vision's sharding).

Layers know nothing of meshes. The batch is split over ``data`` and ``fsdp``; weights over ``fsdp`` and, where they have
components, ``tensor``, by the first rule whose pattern matches their path; XLA inserts the communication.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kind_jax.config import MeshConfig
from kind_jax.errors import UserError
from kind_jax.partition import NAMES

AXES = ("data", "fsdp", "tensor")

Rules = tuple[tuple[str, tuple[str | None, ...]], ...]
"""Patterns of whole paths, and the mesh axis of each of a leaf's axes."""

RULES: Rules = (
    # Blocks of different forms are not stacked: the same without the depth axis.
    (r"learngenes/blocks/\d+/.*/u", ("fsdp", "tensor")),
    (r"learngenes/blocks/\d+/.*/v", ("tensor", "fsdp")),
    (r"learngenes/blocks/\d+/.*/s", ("tensor",)),
    (r"params/blocks/\d+/.*/kernel", ("fsdp",)),
    # Factored weights put their components on `tensor`: x @ u is local, and only y = h @ v is summed over devices.
    (r"learngenes/.*/u", (None, "fsdp", "tensor")),
    (r"learngenes/.*/v", (None, "tensor", "fsdp")),
    (r"learngenes/.*/s", (None, "tensor")),
    # Tailors are spread by group, or by feature where fsdp does not divide the groups (with or without a depth axis).
    (r"tailors/.*/[usv]_t", ("fsdp",)),
    (r"tailors/blocks/\d+/.*/u_t", (None, "fsdp")),
    (r"tailors/blocks/\d+/.*/v_t", (None, None, "fsdp")),
    (r"tailors/.*/u_t", (None, None, "fsdp")),
    (r"tailors/.*/v_t", (None, None, None, "fsdp")),
    # Dense outputs (adaLN's six parts, q | k | v) are cut along their features, so these must not be split: XLA's CPU
    # partitioner returned wrong gradients for them on a (2, 2, 2) mesh. Splitting inputs is right on every mesh tried.
    (r"params/blocks/.*/kernel", (None, "fsdp")),
    (r"params/blocks/.*/bias", ()),
    (r"params/.*/kernel", (None, None, "fsdp")),  # of a convolution, whose inputs are its third axis
    (r"params/.*/kernel", ("fsdp",)),
    # A look-up in a table that is cut along its features would be sent around whole; the table is small.
    (r"params/label_embed/table", ()),
    (r"params/.*/bias", ()),
    # The rest is small.
    (r"params/.*(scale|token|position)", ()),
    (r"(adapters|projectors|stats)/.*", ()),
)


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The (data, fsdp, tensor) mesh over all devices.

    Raises:
      UserError: the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [config.data, config.fsdp, config.tensor]
    fixed = int(np.prod([n for n in sizes if n > 0]))
    if -1 in sizes:
        sizes[sizes.index(-1)] = max(len(devices) // fixed, 1)
    if int(np.prod(sizes)) != len(devices):
        found = dict(zip(AXES, (config.data, config.fsdp, config.tensor), strict=True))
        raise UserError(
            f"mesh is {found}, but its axes must multiply to the number of devices, which is {len(devices)}."
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def spec(path: str, shape: tuple[int, ...], mesh: Mesh, rules: Rules = RULES) -> PartitionSpec:
    """The PartitionSpec of one weight.

    The first matching rule of at most the weight's rank whose axes all divide their dimensions decides; if there is
    none, the first that matches, without the axes that do not.

    Raises:
      UserError: no rule covers the path.
    """
    matching = [axes for pattern, axes in rules if re.fullmatch(pattern, path) and len(axes) <= len(shape)]
    if not matching:
        raise UserError(f"no sharding rule covers '{path}'; add one to kind_jax.train.sharding.RULES.")
    fitting = [_dividing(axes, shape, mesh) for axes in matching]
    return PartitionSpec(*next((axes for axes, fit in zip(matching, fitting, strict=True) if fit == axes), fitting[0]))


def _dividing(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh) -> tuple[str | None, ...]:
    """``axes`` without those that do not divide their dimension."""
    return tuple(a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape, strict=False))


def shard_like(tree: Any, mesh: Mesh, rules: Rules = ()) -> Any:
    """NamedShardings for a state.

    Weights go by rule, averages and moments as the weight whose path they end with, counters to every device.

    Args:
      rules: of a task, which come before those of this module.
    """

    def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        names = [str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path]
        roots = [i for i, name in enumerate(names) if name in NAMES]
        # multi_transform's own states are keyed by collection too: the innermost name begins the weight's path.
        if not roots or leaf.ndim == 0 or roots[-1] == len(names) - 1 or "count" in names:
            return NamedSharding(mesh, PartitionSpec())
        if names[roots[-1] + 1] == "inner_state":  # of no weight, but of all that are labelled so: Muon's coefficients
            return NamedSharding(mesh, PartitionSpec())
        return NamedSharding(mesh, spec("/".join(names[roots[-1] :]), leaf.shape, mesh, (*rules, *RULES)))

    return jax.tree_util.tree_map_with_path(of, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Images and labels are split over every data-parallel device."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def share_of_batch(where: NamedSharding, batch: int) -> tuple[int, int]:
    """Which part of a global batch this process must read: (number, count), its number counted from 0.

    Usually one part for each process; where ``tensor`` spans processes, several of them read the same part.
    """
    mine = where.addressable_devices_indices_map((batch,)).values()
    spans = {rows[0].indices(batch)[:2] for rows in mine if rows is not None}
    begin, end = min(a for a, _ in spans), max(b for _, b in spans)
    size = end - begin
    covered = sum(b - a for a, b in spans)
    if covered != size or batch % size or begin % size:
        raise UserError(
            f"mesh {dict(where.mesh.shape)} gives process {jax.process_index()} the rows {sorted(spans)} of a batch of "
            f"{batch}, but they must be one part of equal parts; choose a mesh whose axes follow the hosts."
        )
    return begin // size, batch // size


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def check_batch(batch: int, accumulate: int, mesh: Mesh) -> None:
    """Refuse a batch that the mesh cannot split evenly."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if (batch // accumulate) % ways:
        raise UserError(
            f"train.batch is {batch} in {accumulate} micro-batches, but a micro-batch must be a multiple of the {ways} "
            f"data-parallel devices."
        )
