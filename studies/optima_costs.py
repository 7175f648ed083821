"""What a turn of the bandit costs beside the steps of a round, measured in one process, the programs in turns."""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
from optima_training import BATCH, Plan, Program, known, plain, split

from kind_jax.data import pipeline
from kind_jax.distillation.optima import OptimaTask
from kind_jax.distillation.optima_config import optima_run
from kind_jax.distillation.rounds import Rounds
from kind_jax.partition import Collections
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.step import make_step

ROUNDS, DEFAULT = 25, 20  # of the measurement; steps of a round by default


def costs(program: Program, teacher: Collections) -> dict[str, Any]:
    """Seconds of a step beside the teacher, of one without, and of a turn whose probe is a batch; medians."""
    task = OptimaTask(optima_run(plain(program.depth), known(probe=BATCH, round=DEFAULT)))
    alone = task_of(plain(program.depth))
    control = Rounds(task)
    state, _ = next(program.rounds(Plan(optima=known(), seed=0, steps=10, rate=1e-3), teacher, teacher))
    fixed = jax.tree.map(jnp.asarray, teacher)
    batch = next(pipeline.batches(split("train"), batch=BATCH, seed=0))
    probe = jax.tree.map(jnp.asarray, control.probe(split("train")))
    single = states.start(alone, {"params": jax.tree.map(jnp.asarray, state.collections["params"])})
    step, lone, turn = jax.jit(make_step(task)), jax.jit(make_step(alone)), jax.jit(control.turn)
    ways = {
        "step": lambda: step(state, batch, fixed),
        "step without a teacher": lambda: lone(single, batch),
        "turn": lambda: turn(state.collections, probe, fixed),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 2):
        for name, way in ways.items():
            used = time.process_time()  # of this process: others on the machine do not count
            jax.block_until_ready(way())
            if number >= 2:  # the first ones compile
                times[name].append(time.process_time() - used)
    medians = {name: statistics.median(found) for name, found in times.items()}
    share = [b / (DEFAULT * a + b) for a, b in zip(times["step"], times["turn"], strict=True)]
    alone_share = [b / a for a, b in zip(times["step"], times["step without a teacher"], strict=True)]
    return {
        "seconds": {name: round(value, 5) for name, value in medians.items()},
        "turn, share of a round of 20": round(statistics.median(share), 4),
        "step without a teacher, share": round(statistics.median(alone_share), 4),
        "measurements": ROUNDS,
    }
