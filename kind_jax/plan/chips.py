"""Accelerators by name: what their makers publish. Imports nothing heavy: the training loop asks for a peak too."""

from __future__ import annotations

import dataclasses

from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator as JAX counts devices.

    Attributes:
      name: as ``--chip`` takes it.
      title: as people call it.
      flops: peak of dense bfloat16 products, FLOP/s.
      memory: bytes of HBM; runtimes keep a little of it for themselves.
      bandwidth: bytes/s that it can receive from its neighbours while it sends as many: half of a figure that is given
        as bidirectional.
      kinds: ``device_kind`` in JAX, exactly: variants with other peaks (PCIe, NVL, MIG) are other strings.
      source: the page of the maker that has the figures.
    """

    name: str
    title: str
    flops: float
    memory: int
    bandwidth: float
    kinds: tuple[str, ...]
    source: str


_GB = 10**9

CHIPS = (
    # The data sheets give 1,979 TFLOP/s with sparsity, which is twice the dense figure.
    Chip(
        name="h100", title="H100 SXM", flops=989e12, memory=80 * _GB, bandwidth=450e9, kinds=("NVIDIA H100 80GB HBM3",),
        source="https://www.nvidia.com/en-us/data-center/h100/",
    ),
    Chip(
        name="h200", title="H200 SXM", flops=989e12, memory=141 * _GB, bandwidth=450e9, kinds=("NVIDIA H200",),
        source="https://www.nvidia.com/en-us/data-center/h200/",
    ),
    Chip(
        name="v5e", title="TPU v5e", flops=197e12, memory=16 * _GB, bandwidth=200e9, kinds=("TPU v5 lite", "TPU v5e"),
        source="https://docs.cloud.google.com/tpu/docs/v5e",
    ),
    Chip(
        name="v5p", title="TPU v5p", flops=459e12, memory=95 * _GB, bandwidth=600e9, kinds=("TPU v5", "TPU v5p"),
        source="https://docs.cloud.google.com/tpu/docs/v5p",
    ),
    Chip(
        name="v6e", title="TPU v6e", flops=918e12, memory=32 * _GB, bandwidth=400e9, kinds=("TPU v6 lite", "TPU v6e"),
        source="https://docs.cloud.google.com/tpu/docs/v6e",
    ),
)  # fmt: skip


def find(name: str) -> Chip:
    """The chip of this name.

    Raises:
      UserError: there is none.
    """
    for chip in CHIPS:
        if chip.name == name.lower():
            return chip
    raise UserError(f"--chip is {name!r}, but it must be one of {', '.join(chip.name for chip in CHIPS)}.")


def peak_flops(device_kind: str) -> float | None:
    """Peak dense bfloat16 FLOP/s of a JAX device by its ``device_kind``; None where it is not known (a CPU, say)."""
    for chip in CHIPS:
        if device_kind.lower() in (kind.lower() for kind in chip.kinds):
            return chip.flops
    return None
