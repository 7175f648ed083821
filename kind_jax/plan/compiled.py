"""The real train step, compiled for a mesh of devices that are not here.

JAX's CPU backend stands in for them: it can be told to have any number of devices, and the program that XLA partitions
for 256 of them is the one that 256 accelerators would divide among them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import time
from typing import Any

import jax
from jax.sharding import Mesh

from kind_jax.config import Config, MeshConfig, RunConfig, is_of
from kind_jax.deploy import cost
from kind_jax.errors import UserError
from kind_jax.partition import TAILORS
from kind_jax.plan.collectives import Collectives, count
from kind_jax.plan.rows import RowsInUse, rows_in_use
from kind_jax.tasks import task_of
from kind_jax.train import sharding
from kind_jax.train import state as states
from kind_jax.train.dealt import Dealt
from kind_jax.train.layout import Layout, layout_of
from kind_jax.train.step import make_step
from kind_jax.train.task import check_whole

MOST_DEVICES = 16384  # fake devices take memory and threads of the host
# Nothing is going to run: buffers and communication are the same without LLVM's optimisations, which take long.
_PLAN_ONLY: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
_COUNT = "jax_num_cpu_devices"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateBytes:
    """Bytes of the training state on one device.

    Attributes:
      counters: the step number and its like.
      fixed: weights that steps read and do not change.
      tailors: of all of these, what belongs to the tailor bank.
    """

    parameters: int
    average: int
    optimizer: int
    counters: int
    tailors: int
    fixed: int = 0

    @property
    def total(self) -> int:
        return self.parameters + self.average + self.optimizer + self.counters + self.fixed


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledStep:
    """What one device holds, computes and receives in one step.

    Attributes:
      batch: bytes of images and labels.
      arguments: what XLA says that state and batch take, to compare with.
      temporary: bytes that XLA allocates during a step: activations, gradients, gathered weights.
      outputs: bytes of results that do not take the place of the state before: metrics, and XLA's pointers to all.
      flops: of matrix products, with the backward pass; see :func:`flops_per_device`.
      layout: how samples and groups lie on the mesh.
      rows: what part of the temporary memory the rows of the tailor bank take; None for a model without tailors.
      seconds: it took to trace and compile.
    """

    devices: int
    state: StateBytes
    batch: int
    arguments: int
    temporary: int
    outputs: int
    flops: float
    collectives: Collectives
    layout: Layout
    rows: RowsInUse | None
    seconds: float

    @property
    def memory(self) -> int:
        """Bytes of everything together."""
        return self.state.total + self.batch + self.temporary + self.outputs


def parse_mesh(text: str) -> MeshConfig:
    """``16x16`` as data x fsdp, ``8x16x2`` as data x fsdp x tensor, ``8`` as data.

    Raises:
      UserError: anything else.
    """
    if not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5}){0,2}", text):
        raise UserError(f"--mesh is {text!r}, but it must be sizes of data x fsdp (x tensor), like 16x16 or 8x16x2.")
    sizes = [int(n) for n in text.split("x")] + [1, 1]
    return MeshConfig(data=sizes[0], fsdp=sizes[1], tensor=sizes[2])


def fake_devices(config: MeshConfig) -> list[Any]:
    """CPU devices for a mesh, as many as it names.

    Raises:
      UserError: the mesh leaves the number open or wants too many, or JAX has started already with fewer.
    """
    sizes = (config.data, config.fsdp, config.tensor)
    if -1 in sizes:
        raise UserError(
            f"mesh.{sharding.AXES[sizes.index(-1)]} is -1 (all devices that are left), but a plan is for devices that "
            "are not here to be counted: give every axis, like --mesh 16x16."
        )
    wanted = math.prod(sizes)
    if wanted > MOST_DEVICES:
        raise UserError(f"the mesh has {wanted} devices, but a plan can be made for {MOST_DEVICES} at most.")
    with contextlib.suppress(RuntimeError):  # JAX has started: what it has is what there is
        jax.config.update(_COUNT, max(wanted, getattr(jax.config, _COUNT)))
        jax.config.update("jax_platforms", "cpu")
    found = jax.devices("cpu")
    if len(found) < wanted or jax.default_backend() != "cpu":
        raise UserError(
            f"the mesh has {wanted} devices, but JAX has started already, with {len(found)} of CPU and for "
            f"{jax.default_backend()}: plan in a process of its own."
        )
    return found[:wanted]


def state_bytes(config: RunConfig, mesh: Mesh) -> StateBytes:
    """What one device holds of the state; exact, and from shapes alone."""
    task = task_of(config)
    shapes = Dealt(task, layout_of(task, mesh), mesh).shapes(states.abstract(task))
    shardings = sharding.shard_like(shapes, mesh, task.rules)
    sizes = jax.tree.map(lambda leaf, where: _shard(leaf, where), shapes, shardings)
    parts = {
        name: sum(jax.tree.leaves(getattr(sizes, field)))
        for name, field in (("parameters", "collections"), ("average", "ema"), ("optimizer", "opt"))
    }
    found = jax.tree_util.tree_leaves_with_path(sizes)
    tailors = sum(size for path, size in found if any(getattr(key, "key", None) == TAILORS for key in path))
    fixed = task.fixed_shapes()
    others = jax.tree.leaves(jax.tree.map(_shard, fixed, sharding.shard_like(fixed, mesh, task.rules)))
    counters = sum(size for _, size in found) - sum(parts.values())
    return StateBytes(**parts, counters=counters, tailors=tailors, fixed=sum(others))


def flops_per_device(config: RunConfig) -> float:
    """FLOPs of a training step on one device: a backward pass is two forward passes, and remat adds one more.

    ``data`` and ``fsdp`` split the batch; ``tensor`` splits the products of a diffusion transformer's learngenes and
    nothing else.
    """
    mesh = config.mesh
    passes = 4 if remat(config) else 3
    if not is_of(config, Config):  # of a module, whose frozen neighbours are not all computed anew, a little too much
        return task_of(config).flops() / 3 * passes / (mesh.data * mesh.fsdp)

    def forward(kept: tuple[int, ...] | None) -> float:
        parts = cost.products(config.model, config.train.batch, kept)
        return (parts.learngenes / mesh.tensor + parts.rest) / (mesh.data * mesh.fsdp)

    guided = 2 * forward(None) if config.guidance.on else 0.0  # of which nothing is differentiated
    return passes * forward(config.routing.tokens(config.model)) + guided


def remat(config: RunConfig) -> bool | None:
    """Whether the backward pass computes blocks anew; None for a network that has no such setting."""
    return getattr(getattr(config, "model", None), "remat", None)


def compile_step(config: RunConfig, devices: list[Any]) -> CompiledStep:
    """Compile the step as :func:`kind_jax.train.loop.train` does, for ``config.mesh`` over ``devices``.

    Raises:
      UserError: the mesh does not fit the devices or the batch.
    """
    begin = time.monotonic()
    mesh = sharding.make_mesh(config.mesh, devices)
    sharding.check_batch(config.train.batch, config.train.accumulate, mesh)
    task = task_of(config)
    check_whole(task)
    layout = layout_of(task, mesh)
    shapes = Dealt(task, layout, mesh).shapes(states.abstract(task))
    shardings = sharding.shard_like(shapes, mesh, task.rules)
    state = jax.tree.map(_placed, shapes, shardings)
    where = sharding.batch_sharding(mesh)
    batch = {name: _placed(leaf, where) for name, leaf in task.batch().items()}
    step = jax.jit(
        make_step(task, layout=layout), donate_argnums=0, out_shardings=(shardings, sharding.replicated(mesh))
    )
    shapes = task.fixed_shapes()
    fixed = jax.tree.map(_placed, shapes, sharding.shard_like(shapes, mesh, task.rules))
    compiled = step.lower(state, batch, fixed).compile(_PLAN_ONLY)
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None
    assert text is not None
    return CompiledStep(
        devices=len(devices),
        state=state_bytes(config, mesh),
        batch=sum(_shard(leaf, where) for leaf in batch.values()),
        arguments=memory.argument_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        flops=flops_per_device(config),
        collectives=count(text),
        layout=layout,
        rows=rows_in_use(task, layout, mesh.shape["data"] * mesh.shape["fsdp"]),
        seconds=time.monotonic() - begin,
    )


def _placed(leaf: Any, where: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)


def _shard(leaf: Any, where: Any) -> int:
    return math.prod(where.shard_shape(leaf.shape)) * leaf.dtype.itemsize
