"""What a compiled step means for a chip: does it fit, how long is a step, and what to change where it does not."""

from __future__ import annotations

import dataclasses
from typing import Any

from kind_jax.chips import Chip
from kind_jax.config import MeshConfig, RunConfig
from kind_jax.errors import UserError
from kind_jax.plan.collectives import Collectives, crossing
from kind_jax.plan.compiled import CompiledStep, StateBytes, remat, state_bytes
from kind_jax.tasks import task_of
from kind_jax.train import sharding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """One chip's.

    Attributes:
      compute_seconds: of a step that only computes, at the given share of the chip's peak.
      collective_seconds: of the communication of the program for CPU, at the chip's full bandwidths; the chip's own
        program may send fewer bytes.
      step_seconds: of both one after the other, with no overlap: what to count on.
      overlapped_seconds: of the longer of the two, with the other one hidden behind it entirely.
      images_per_second: over all devices, with ``step_seconds``.
      overlapped_images_per_second: the same with ``overlapped_seconds``, the best that overlap can do.
    """

    chip: Chip
    fits: bool
    compute_seconds: float
    collective_seconds: float
    step_seconds: float
    overlapped_seconds: float
    images_per_second: float
    overlapped_images_per_second: float


def judge(step: CompiledStep, chip: Chip, batch: int, mfu: float) -> Verdict:
    """The verdict on ``chip`` for a step on ``batch`` images at ``mfu`` of its peak.

    Raises:
      UserError: ``mfu`` is not in (0, 1].
    """
    check_mfu(mfu)
    compute = step.flops / (chip.flops * mfu)
    collectives = collective_seconds(step.collectives, step.devices, chip)
    both, longer = compute + collectives, max(compute, collectives)
    return Verdict(
        chip=chip,
        fits=step.memory <= chip.memory,
        compute_seconds=compute,
        collective_seconds=collectives,
        step_seconds=both,
        overlapped_seconds=longer,
        images_per_second=batch / both,
        overlapped_images_per_second=batch / longer,
    )


def collective_seconds(collectives: Collectives, devices: int, chip: Chip) -> float:
    """How long the collectives of a step take on ``chip``, one after another.

    Devices stand in the order of the mesh: those that differ in its last axis are neighbours. Inside a box or a pod a
    collective of all devices has all links; on a torus, one of fewer runs along one axis of it and has that axis's
    links. What crosses to other boxes goes over the network at the same time, and the slower of the two counts.
    """
    total = 0.0
    for flow, traffic in collectives.flows.items():
        links = 1 if len(flow.members) == devices else 1 / chip.torus
        across = crossing(flow, traffic.output, chip.neighbours)
        total += max(traffic.received / (chip.bandwidth * links), across / chip.network)
    return total


def check_mfu(mfu: float) -> None:
    """Refuse a share of the peak that is none."""
    if not 0 < mfu <= 1:
        raise UserError(f"--mfu is {mfu}, but it must be above 0 and at most 1.")


def record(config: RunConfig, step: CompiledStep, verdicts: list[Verdict], mfu: float) -> dict[str, Any]:
    """Everything as plain numbers, for JSON: bytes, FLOPs and seconds of one device and one step."""
    return {
        "mesh": dataclasses.asdict(config.mesh),
        "batch": config.train.batch,
        "steps": config.train.steps,
        "mfu": mfu,
        "compile_seconds": step.seconds,
        "memory": {
            **dataclasses.asdict(step.state), "batch": step.batch, "temporary": step.temporary,
            "outputs": step.outputs, "total": step.memory,
        },
        "flops": step.flops,
        "collectives": {kind: dataclasses.asdict(t) for kind, t in step.collectives.by_kind.items()},
        "layout": dataclasses.asdict(step.layout),
        "rows_in_use": None if step.rows is None else dataclasses.asdict(step.rows),
        "loops_of_unknown_length": step.collectives.unknown_loops,
        "chips": [dataclasses.asdict(verdict) for verdict in verdicts],
    }  # fmt: skip


def check_fits(config: RunConfig, step: CompiledStep, verdicts: list[Verdict], devices: list[Any]) -> None:
    """Refuse a plan that fits none of the chips.

    Raises:
      UserError: with figures, and the changes that would help this config.
    """
    if any(verdict.fits for verdict in verdicts):
        return
    largest = max((verdict.chip for verdict in verdicts), key=lambda chip: chip.memory)
    chip = largest.title if len(verdicts) == 1 else f"the largest chip, {largest.title},"
    raise UserError(
        f"the step needs {readable(step.memory)} on each device (state {readable(step.state.total)}, temporary "
        f"{readable(step.temporary)}), but {chip} has {readable(largest.memory)}: "
        f"{'; or '.join(advice(config, step, devices)) or 'more devices are needed'}."
    )


def advice(config: RunConfig, step: CompiledStep, devices: list[Any]) -> list[str]:
    """Changes that would lower what a device needs, each as a phrase; only those that this config has left."""
    mesh, train, found = config.mesh, config.train, []
    found += _other_fsdp(config, step.state, devices)
    if remat(config) is False:
        found.append("set model.remat, so that the backward pass computes activations anew")
    ways = mesh.data * mesh.fsdp
    images = train.batch // train.accumulate // ways
    if images > 1 and task_of(config).whole_batch is not None:
        found.append(f"lower train.batch from {train.batch}, since a device has {images} images at a time")
    elif images > 1:
        most = train.batch // ways
        found.append(
            f"raise train.accumulate from {train.accumulate} to up to {most}, or lower train.batch from {train.batch}, "
            f"since a device has {images} images at a time"
        )
    if 4 * step.state.tailors > step.memory:
        settings: Any = config
        found.append(
            f"have fewer tailors: {settings.model.num_groups} groups of {settings.model.tailors} "
            f"(model.factor.tailors) are {readable(step.state.tailors)} of the state"
        )
    return found


def _other_fsdp(config: RunConfig, state: StateBytes, devices: list[Any]) -> list[str]:
    """A mesh that holds the state in less: more of fsdp on the same devices."""
    mesh, found = config.mesh, []
    weighed = [(fsdp, _with_fsdp(config, fsdp, devices)) for fsdp in _larger(mesh)]
    if smaller := [(other.total, fsdp) for fsdp, other in weighed if other and other.total < 0.95 * state.total]:
        least, fsdp = min(smaller)
        found.append(f"raise mesh.fsdp from {mesh.fsdp} to {fsdp}, where the state needs {readable(least)}")
    return found


def _larger(mesh: MeshConfig) -> list[int]:
    both = mesh.data * mesh.fsdp
    return [n for n in range(mesh.fsdp + 1, both + 1) if both % n == 0]


def _with_fsdp(config: RunConfig, fsdp: int, devices: list[Any]) -> StateBytes | None:
    """None where class-grouped batches do not fit that mesh."""
    mesh = config.mesh
    try:
        return _state(config, dataclasses.replace(mesh, data=mesh.data * mesh.fsdp // fsdp, fsdp=fsdp), devices)
    except UserError:
        return None


def _state(config: RunConfig, mesh: MeshConfig, devices: list[Any]) -> StateBytes:
    count = mesh.data * mesh.fsdp * mesh.tensor
    return state_bytes(config, sharding.make_mesh(mesh, devices[:count]))


def readable(size: int | float) -> str:
    """Bytes with a decimal unit and three digits."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor / 10:
            number = size / factor
            return f"{number:,.{1 if number >= 10 else 2 if number >= 1 else 3}f} {unit}"
    return f"{size:.0f} B"


def readable_time(seconds: float) -> str:
    """Seconds or milliseconds with three digits."""
    return f"{seconds:,.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
