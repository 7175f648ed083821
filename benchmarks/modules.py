"""A step of one module inside its meta model against a step of the whole network."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import compiled
from harness import Contestant, Found, Ratio, Row, race
from record import Settings

from kind_jax import model
from kind_jax.assembling import cuts
from kind_jax.assembling.config import ModuleConfig, module_run
from kind_jax.assembling.task import ModuleTask, around, beginning
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import TrainConfig
from kind_jax.config.networks import ViTConfig
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.step import make_step
from kind_jax.train.task import Task

TIME, MEMORY = 1.15, 0.5  # of its share of the FLOPs; of the whole network's step
MODULES = 4


def measure(settings: Settings) -> Found:
    """A ViT of width 128 and depth 24 in four modules, 65 tokens, batch 32, scanned: time for its share of the FLOPs,
    and memory, of each module's step."""
    depth, batch = (MODULES, 4) if settings.quick else (24, 32)
    network = ViTConfig(size=32, channels=3, num_classes=10, patch=4, width=128, depth=depth, heads=4, scan_unroll=1)
    run = ClassifyRun(model=network, train=TrainConfig(batch=batch, steps=1000, ema=None))
    rng = np.random.default_rng(0)
    images = {
        "image": rng.uniform(-1, 1, (batch, 32, 32, 3)).astype(np.float32),
        "label": rng.integers(0, 10, batch).astype(np.int32),
    }
    depths = (depth // MODULES,) * MODULES
    meta = model.init(cuts.resized(network, (1,) * MODULES), 0)
    whole = task_of(run)
    contestants, shares = [contestant("whole", whole, whole.init(), {}, images)], {}
    for k in range(MODULES):
        config = module_run(run, ModuleConfig(depths=depths, index=k))
        task = ModuleTask(config)
        contestants.append(contestant(f"module {k}", task, beginning(config, meta), around(config, meta), images))
        shares[f"module {k}"] = task.flops() / whole.flops()
    made, rows = race(contestants, rounds=settings.rounds), []
    for each in contestants[1:]:
        found, share = made.ratio(each.name, "whole"), shares[each.name]
        for_share = Ratio(**{f.name: getattr(found, f.name) / share for f in dataclasses.fields(Ratio)})
        rows.append(
            Row(what=f"{each.name} of 4, time for its share of FLOPs ({share:.3f})", ratio=for_share, target=TIME)
        )
        if each.total_bytes and contestants[0].total_bytes:
            memory = Ratio.exact(each.total_bytes / contestants[0].total_bytes)
            rows.append(Row(what=f"{each.name} of 4, memory of the step / whole", ratio=memory, target=MEMORY))
    return Found(
        rows=tuple(rows), sizes={"network": dataclasses.asdict(network), "batch": batch, "depths": depths},
        details=made.details(),
    )  # fmt: skip


def contestant(name: str, task: Task, weights: Any, fixed: Any, batch: dict[str, np.ndarray]) -> Contestant:
    """The step of a task."""
    state = jax.jit(lambda given: states.start(task, given))(jax.tree.map(jnp.asarray, weights))
    placed, fixed = jax.device_put(batch), jax.tree.map(jnp.asarray, fixed)
    program, facts = compiled(make_step(task), state, placed, fixed, donate=True)
    held = [state]

    def step() -> None:
        held[0], _ = program(held[0], placed, fixed)
        jax.block_until_ready(held[0])

    return Contestant(name=name, step=step, **facts)
