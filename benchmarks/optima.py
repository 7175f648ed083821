"""What distilling module by module costs: a step that weighs all modules' losses, one that knows a single module, plain
layerwise distillation, the student alone; and a turn of the bandit beside a round.

    make bench-optima

A CoCa of the preset emoji's size teaches one of half its depth, on noise. All steps run alternately in one process, so
that ratios hold on a busy machine, too; figures are medians over rounds.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from kind_jax import model
from kind_jax.captioning.presets import emoji
from kind_jax.distillation.optima import OptimaTask
from kind_jax.distillation.optima_config import OptimaConfig, optima_run
from kind_jax.host import keep_memory
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.step import make_step

_POLICIES = ("thompson", "fixed:image", "fixed:text", "fixed:multimodal", "all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time steps and turns."""

    rounds: int = 15
    """Of all steps, each once."""
    batch: int = 32
    """Pairs of a step, and of the probe."""


def main() -> None:
    """Time and print."""
    parsed = tyro.cli(Arguments)
    keep_memory()
    teacher = emoji(depth=4).model
    plain = emoji(depth=2)
    plain = dataclasses.replace(plain, train=dataclasses.replace(plain.train, batch=parsed.batch))
    weights = jax.tree.map(jnp.asarray, model.init(teacher, 1))
    known = OptimaConfig(teacher=".", source="0" * 64, network=teacher)
    tasks = {name: OptimaTask(optima_run(plain, dataclasses.replace(known, policy=name))) for name in _POLICIES}
    rng = np.random.default_rng(0)
    batch = {name: jnp.asarray(_noise(rng, name, spec)) for name, spec in tasks["all"].batch().items()}
    runs: dict[str, Any] = {"student alone": _stepper(task_of(plain), batch, {})}
    runs |= {name: _stepper(task, batch, weights) for name, task in tasks.items()}
    control, collections = tasks["thompson"].control, jax.tree.map(jnp.asarray, tasks["thompson"].init())
    assert control is not None
    turn = jax.jit(control.turn)
    runs["turn"] = lambda: jax.block_until_ready(turn(collections, batch, weights))
    for run in runs.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(parsed.rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    base = times["thompson"]
    print(f"{'':18s} {'ms':>8s} {'of thompson':>12s}")
    for name, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(found, base, strict=True))
        print(f"{name:18s} {1e3 * statistics.median(found):8.1f} {ratio:12.3f}")
    share = statistics.median(a / b for a, b in zip(times["turn"], base, strict=True))
    for steps in (5, 10, 20, 50):
        print(f"a turn is {100 * share / (steps + share):.1f} % of the time with rounds of {steps} steps")


def _noise(rng: np.random.Generator, name: str, spec: Any) -> np.ndarray:
    if name == "captions":
        return np.ones(spec.shape, np.int32)
    if np.issubdtype(spec.dtype, np.integer):
        return rng.integers(3, 200, spec.shape).astype(np.int32)
    return rng.standard_normal(spec.shape).astype(np.float32)


def _stepper(task: Any, batch: Any, fixed: Any) -> Any:
    step = jax.jit(make_step(task), donate_argnums=0)
    held = [states.start(task, jax.tree.map(jnp.asarray, task.init()))]

    def run() -> None:
        held[0], metrics = step(held[0], batch, fixed)
        jax.block_until_ready(metrics)

    return run


if __name__ == "__main__":
    main()
