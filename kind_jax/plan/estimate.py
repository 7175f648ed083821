"""What a compiled step means for a chip: does it fit, how long is a step, and what to change where it does not."""

from __future__ import annotations

import dataclasses
from typing import Any

from kind_jax.config import Config, MeshConfig
from kind_jax.errors import UserError
from kind_jax.plan.chips import Chip
from kind_jax.plan.compiled import CompiledStep, StateBytes, state_bytes
from kind_jax.train import sharding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """One chip's.

    Attributes:
      step_seconds: of a step that only computes, at the given share of the chip's peak.
      images_per_second: over all devices, at that time.
      collective_seconds: of the communication of the program for CPU, were every byte to travel at the chip's full
        bandwidth. It overlaps with computing, more or less, and the chip's own program may send fewer bytes.
    """

    chip: Chip
    fits: bool
    step_seconds: float
    images_per_second: float
    collective_seconds: float


def judge(step: CompiledStep, chip: Chip, batch: int, mfu: float) -> Verdict:
    """The verdict on ``chip`` for a step on ``batch`` images at ``mfu`` of its peak.

    Raises:
      UserError: ``mfu`` is not in (0, 1].
    """
    check_mfu(mfu)
    seconds = step.flops / (chip.flops * mfu)
    return Verdict(
        chip=chip,
        fits=step.memory <= chip.memory,
        step_seconds=seconds,
        images_per_second=batch / seconds,
        collective_seconds=step.collectives.total.received / chip.bandwidth,
    )


def check_mfu(mfu: float) -> None:
    """Refuse a share of the peak that is none."""
    if not 0 < mfu <= 1:
        raise UserError(f"--mfu is {mfu}, but it must be above 0 and at most 1.")


def record(config: Config, step: CompiledStep, verdicts: list[Verdict], mfu: float) -> dict[str, Any]:
    """Everything as plain numbers, for JSON: bytes, FLOPs and seconds of one device and one step."""
    return {
        "mesh": dataclasses.asdict(config.mesh),
        "batch": config.train.batch,
        "mfu": mfu,
        "compile_seconds": step.seconds,
        "memory": {
            **dataclasses.asdict(step.state), "batch": step.batch, "temporary": step.temporary,
            "outputs": step.outputs, "total": step.memory,
        },
        "flops": step.flops,
        "collectives": {kind: dataclasses.asdict(t) for kind, t in step.collectives.by_kind.items()},
        "loops_of_unknown_length": step.collectives.unknown_loops,
        "chips": [dataclasses.asdict(verdict) for verdict in verdicts],
    }  # fmt: skip


def check_fits(config: Config, step: CompiledStep, verdicts: list[Verdict], devices: list[Any]) -> None:
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


def advice(config: Config, step: CompiledStep, devices: list[Any]) -> list[str]:
    """Changes that would lower what a device needs, each as a phrase; only those that this config has left."""
    mesh, train, found = config.mesh, config.train, []
    found += _other_fsdp(config, step.state, devices)
    if not config.model.remat:
        found.append("set model.remat, so that the backward pass computes activations anew")
    ways = mesh.data * mesh.fsdp
    images = train.batch // train.accumulate // ways
    if images > 1:
        most = train.batch // ways
        found.append(
            f"raise train.accumulate from {train.accumulate} to up to {most}, or lower train.batch from {train.batch}, "
            f"since a device has {images} images at a time"
        )
    if 4 * step.state.tailors > step.memory:
        found.append(
            f"have fewer tailors: {config.model.num_groups} groups of {config.model.tailors} "
            f"(model.factor.tailors) are {readable(step.state.tailors)} of the state"
        )
    return found


def _other_fsdp(config: Config, state: StateBytes, devices: list[Any]) -> list[str]:
    """A mesh that holds the state in less: more of fsdp on the same devices."""
    mesh, found = config.mesh, []
    weighed = [(fsdp, _with_fsdp(config, fsdp, devices).total) for fsdp in _larger(mesh)]
    if smaller := [(bytes_, fsdp) for fsdp, bytes_ in weighed if bytes_ < 0.95 * state.total]:
        least, fsdp = min(smaller)
        found.append(f"raise mesh.fsdp from {mesh.fsdp} to {fsdp}, where the state needs {readable(least)}")
    return found


def _larger(mesh: MeshConfig) -> list[int]:
    both = mesh.data * mesh.fsdp
    return [n for n in range(mesh.fsdp + 1, both + 1) if both % n == 0]


def _with_fsdp(config: Config, fsdp: int, devices: list[Any]) -> StateBytes:
    mesh = config.mesh
    return _state(config, dataclasses.replace(mesh, data=mesh.data * mesh.fsdp // fsdp, fsdp=fsdp), devices)


def _state(config: Config, mesh: MeshConfig, devices: list[Any]) -> StateBytes:
    count = mesh.data * mesh.fsdp * mesh.tensor
    return state_bytes(config, sharding.make_mesh(mesh, devices[:count]))


def readable(size: int | float) -> str:
    """Bytes with a decimal unit and three digits."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor / 10:
            number = size / factor
            return f"{number:,.{1 if number >= 10 else 2 if number >= 1 else 3}f} {unit}"
    return f"{size:.0f} B"
