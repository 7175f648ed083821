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
      memory_bandwidth: bytes/s of HBM.
      bandwidth: bytes/s that it can receive from its neighbours while it sends as many, over all of its links: half of
        a figure that is given as bidirectional.
      torus: axes of the torus that the links form; 1 where a switch joins all neighbours.
      neighbours: devices that these links join, those of a box or a pod.
      network: bytes/s that it can receive from other boxes or pods.
      kinds: ``device_kind`` in JAX, exactly: variants with other peaks (PCIe, NVL, MIG) are other strings.
      source: the maker's page or data sheet that has the figures.
    """

    name: str
    title: str
    flops: float
    memory: int
    memory_bandwidth: float
    bandwidth: float
    torus: int = 1
    neighbours: int
    network: float
    kinds: tuple[str, ...]
    source: str


_GB = 10**9

CHIPS = (
    # NVIDIA gives peaks with sparsity, twice the dense ones. Between boxes: a DGX has an adapter for each GPU, of
    # 200 Gbit/s with A100 and 400 Gbit/s with the others.
    Chip(
        name="a100", title="A100 SXM 80 GB", flops=312e12, memory=80 * _GB, memory_bandwidth=2039e9, bandwidth=300e9,
        neighbours=8, network=25e9, kinds=("NVIDIA A100-SXM4-80GB",),
        source="https://www.nvidia.com/en-us/data-center/a100/",
    ),
    Chip(
        name="a100-40", title="A100 SXM 40 GB", flops=312e12, memory=40 * _GB, memory_bandwidth=1555e9, bandwidth=300e9,
        neighbours=8, network=25e9, kinds=("NVIDIA A100-SXM4-40GB",),
        source="https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet.pdf",
    ),
    Chip(
        name="h100", title="H100 SXM", flops=989e12, memory=80 * _GB, memory_bandwidth=3350e9, bandwidth=450e9,
        neighbours=8, network=50e9, kinds=("NVIDIA H100 80GB HBM3",),
        source="https://www.nvidia.com/en-us/data-center/h100/",
    ),
    Chip(
        name="h200", title="H200 SXM", flops=989e12, memory=141 * _GB, memory_bandwidth=4800e9, bandwidth=450e9,
        neighbours=8, network=50e9, kinds=("NVIDIA H200",),
        source="https://www.nvidia.com/en-us/data-center/h200/",
    ),
    Chip(
        name="b200", title="B200 SXM", flops=2250e12, memory=180 * _GB, memory_bandwidth=8000e9, bandwidth=900e9,
        neighbours=8, network=50e9, kinds=("NVIDIA B200",),
        source="https://www.nvidia.com/en-us/data-center/dgx-b200/",
    ),
    # Between pods: what the data centre's network gives a pod, divided by its chips.
    Chip(
        name="v5e", title="TPU v5e", flops=197e12, memory=16 * _GB, memory_bandwidth=819e9, bandwidth=200e9, torus=2,
        neighbours=256, network=3.125e9, kinds=("TPU v5 lite", "TPU v5e"),
        source="https://docs.cloud.google.com/tpu/docs/v5e",
    ),
    Chip(
        name="v5p", title="TPU v5p", flops=459e12, memory=95 * _GB, memory_bandwidth=2765e9, bandwidth=600e9, torus=3,
        neighbours=8960, network=6.25e9, kinds=("TPU v5", "TPU v5p"),
        source="https://docs.cloud.google.com/tpu/docs/v5p",
    ),
    Chip(
        name="v6e", title="TPU v6e", flops=918e12, memory=32 * _GB, memory_bandwidth=1638e9, bandwidth=400e9, torus=2,
        neighbours=256, network=12.5e9, kinds=("TPU v6 lite", "TPU v6e"),
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


def of_kind(device_kind: str) -> Chip | None:
    """The chip of a JAX device by its ``device_kind``; None where it is not known (a CPU, say)."""
    for chip in CHIPS:
        if device_kind.lower() in (kind.lower() for kind in chip.kinds):
            return chip
    return None


def peak_flops(device_kind: str) -> float | None:
    """Peak dense bfloat16 FLOP/s of a JAX device by its ``device_kind``; None where it is not known."""
    chip = of_kind(device_kind)
    return None if chip is None else chip.flops
