"""What the study of module-wise distillation trains: CoCa on emoji, students beside it, and the rounds between steps.

K: modules. One compiled step serves all policies, seeds and lengths: which losses count comes with the teacher.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import rate_of

from kind_jax.captioning.config import CaptionRun, TextConfig
from kind_jax.captioning.evaluation import evaluate
from kind_jax.captioning.held_out import measure
from kind_jax.captioning.presets import KERNELS
from kind_jax.config import DataConfig, MeshConfig, OptimizerConfig, TrainConfig
from kind_jax.config.coca import CoCaConfig, TowerConfig
from kind_jax.config.training import RuleConfig
from kind_jax.data import pipeline
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset
from kind_jax.deploy.bundle import Bundle
from kind_jax.distillation import inherit
from kind_jax.distillation.optima import Drawn, OptimaTask
from kind_jax.distillation.optima_config import OptimaConfig, optima_run
from kind_jax.distillation.rounds import STATE, Rounds
from kind_jax.nn.init import Initializer
from kind_jax.partition import MEMORY, Collections
from kind_jax.tasks import task_of
from kind_jax.train import sharding
from kind_jax.train import state as states
from kind_jax.train.short import Short
from kind_jax.train.state import TrainState
from kind_jax.train.step import make_step
from kind_jax.train.task import Loss

MODULES = ("image", "text", "multimodal")
TEACHER_DEPTH, WIDTH, CONTEXT, BATCH = 4, 64, 32, 16
ROUND, PROBE = 5, 16
KEPT = ("rewarded", "reward", "probe", "probe_own", "probe_prediction", *(f"probe_{name}" for name in MODULES))
FIGURES = ("caption_loss", "token_accuracy", "text_r1", "text_r5", "image_r1", "image_r5", "zero_shot_top1", "cider")


def plain(depth: int, batch: int = BATCH) -> CaptionRun:
    """A run of CoCa with towers of this depth; its rate and length are said by whoever trains it."""
    tower = TowerConfig(width=WIDTH, depth=depth, heads=4)
    return CaptionRun(
        model=CoCaConfig(
            size=32, patch=8, image=tower, text=tower, multimodal=tower, vocabulary=259, context=CONTEXT,
            embedding=WIDTH, queries=8, pooler_heads=4,
        ),
        text=TextConfig(truncate=True),
        data=DataConfig(source="emoji", size=32, validation=0.1),
        holdout="validation",
        optimizer=OptimizerConfig(learning_rate=1.0, clip=1.0, rules=(RuleConfig(path=KERNELS, weight_decay=0.05),)),
        train=TrainConfig(batch=batch, ema=None),
    )  # fmt: skip


@functools.lru_cache(maxsize=4)
def split(name: str) -> Dataset:
    """A split of the emoji, with its captions as tokens."""
    dataset = open_dataset(plain(1).data, name)  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(dataset, columns=task_of(plain(1)).columns(dataset, {}))


def figures(depth: int, weights: Collections, name: str) -> dict[str, float]:
    """What ``kind-jax evaluate`` says of these weights on a split."""
    config = plain(depth)
    bundle = Bundle(
        config=config, collections={"params": weights["params"]}, groups=(0,), class_names=(), weights="raw",
        step=0, origin=Path(),
    )  # fmt: skip
    found = evaluate(bundle, split(name), batch=192).figures
    return {key: round(float(value), 6) for key, value in found.items()}


def caption_loss(depth: int, weights: Collections) -> float:
    """Cross-entropy of the next token on held-out images."""
    kept = jax.tree.map(jnp.asarray, {"params": weights["params"]})
    mesh = sharding.make_mesh(MeshConfig())
    return measure(plain(depth), kept, split("validation"), batch=192, mesh=mesh).caption_loss


def train_teacher(steps: int, rate: float, batch: int, seed: int = 0) -> Collections:
    """The weights after a training without a teacher."""
    task = task_of(plain(TEACHER_DEPTH, batch))
    run = Short(task, lambda count, peak: rate_of(count, (peak, steps)))
    found: Any = {}
    for done, state, metrics in run.run(task.init(), split("train"), rate=rate, seed=seed, steps=steps):
        if done % 100 == 0:
            print(f"teacher, step {done}: {float(metrics['loss']):.3f}", flush=True)
        if done == steps:
            found = jax.tree.map(np.asarray, state.collections["params"])
    return {"params": found}


@dataclasses.dataclass(frozen=True)
class Steered(OptimaTask):
    """The losses of all policies in one program.

    ``fixed["steer"]`` are the weights of predictions and of modules, and whether all modules count; a single one is the
    module of the round.
    """

    def loss(self, collections: Collections, drawn: Drawn, fixed: Collections) -> Loss:
        prediction, layer, every = fixed["steer"]
        parts = super().loss(collections, drawn, _teacher(fixed)).metrics
        one = jax.nn.one_hot(collections[MEMORY][STATE]["arm"], len(self.names))
        layers = jnp.stack([parts[f"layers_{name}"] for name in self.names])
        value = parts["own"] + prediction * parts["prediction"] + layer * jnp.sum(jnp.maximum(one, every) * layers)
        return Loss(value, {**parts, "loss": value})


@dataclasses.dataclass(frozen=True)
class Told(OptimaTask):
    """A task whose turns are told the values of the probe, so that these are computed by one program for all."""

    def draw(self, batch: Any, key: Any) -> Any:
        del batch, key

    def values(self, collections: Collections, drawn: Any, fixed: Collections) -> Any:
        del collections, drawn
        return fixed["values"]


def _teacher(fixed: Collections) -> Collections:
    return {"params": fixed["params"]}


def known(policy: str = "thompson", **settings: Any) -> OptimaConfig:
    """Settings beside a teacher that the caller holds."""
    network = plain(TEACHER_DEPTH).model
    found = {"projection": "identity", "init": "teacher", "round": ROUND, "probe": PROBE, "policy": policy}
    return OptimaConfig(network=network, source="0" * 64, **(found | settings))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """One run.

    Attributes:
      optima: the policy and its settings; None trains without a teacher.
      rate: greatest learning rate, after a warm-up and before a cosine to 0.
      round: steps of a round.
      split: on which the trained student is measured.
      oracle: whether each round is the best of K that were tried.
    """

    optima: OptimaConfig | None
    seed: int
    steps: int
    rate: float
    round: int = ROUND
    split: str = "test"
    oracle: bool = False


class Program:
    """Trains students of one depth."""

    def __init__(self, depth: int, scope: str = "all") -> None:
        self.depth = depth
        self.task = task = Steered(optima_run(plain(depth), known(scope=scope)))

        def step(state: TrainState, batch: Any, given: Any, seed: Any, fixed: Any) -> Any:
            return make_step(task, rate=lambda count: rate_of(count, given), seed=seed)(state, batch, fixed)

        def values(collections: Any, probe: Any, key: Any, fixed: Any) -> Any:
            return task.values(collections, task.draw(probe, key), _teacher(fixed))

        self._step, self._values = jax.jit(step), jax.jit(values)
        self._start = jax.jit(lambda weights: states.start(task, weights))

    def run(self, plan: Plan, teacher: Collections, begin: Collections | None = None) -> dict[str, Any]:
        """Train one student: its figures, and what each round chose and got.

        Args:
          teacher: what is learnt from.
          begin: whose layers the student begins with; None: the teacher's.
        """
        cost, line, weights = time.process_time(), [], teacher
        for state, said in self.rounds(plan, teacher, begin or teacher):
            line.append({name: round(float(said[name]), 5) for name in KEPT})
            weights = state.collections
        found: dict[str, Any] = {"figures": figures(self.depth, weights, plan.split)}
        if plan.split == "test":
            found["validation_loss"] = round(caption_loss(self.depth, weights), 6)
        rounds = {name: [each[name] for each in line] for name in KEPT}
        return found | {"rounds": rounds, "cpu_seconds": round(time.process_time() - cost, 1)}

    def rounds(
        self, plan: Plan, teacher: Collections, begin: Collections
    ) -> Iterator[tuple[TrainState, dict[str, float]]]:
        """The state and the figures of the turn after each round."""
        optima = plan.optima or known("uniform")
        steer = (optima.prediction, optima.layer, float(optima.policy == "all")) if plan.optima else (0.0, 0.0, 0.0)
        policy = "uniform" if optima.policy == "all" else optima.policy  # turns are taken for their figures alone
        turning = dataclasses.replace(optima, policy=policy, layer=optima.layer or 1.0)
        config = dataclasses.replace(
            self.task.config, optima=turning, train=dataclasses.replace(self.task.config.train, seed=plan.seed)
        )
        told, fixed = Told(config), {**jax.tree.map(jnp.asarray, teacher), "steer": jnp.float32(steer)}
        control = Rounds(told)
        initial = inherit.layers(self.task.student.init(), begin) | told.beside(Initializer(plan.seed))
        state = self._start(jax.tree.map(jnp.asarray, initial))
        probe = jax.tree.map(jnp.asarray, control.probe(split("train")))
        data = pipeline.batches(split("train"), batch=BATCH, seed=plan.seed)
        key, given = jax.random.key(plan.seed), (jnp.float32(plan.rate), jnp.float32(plan.steps))

        def turned(state: TrainState) -> tuple[TrainState, dict[str, float]]:
            values = self._values(state.collections, probe, key, fixed)
            moved, found = control.turn(state.collections, probe, {"values": values})
            return state._replace(collections={**state.collections, **moved}), jax.device_get(found)

        def trained(state: TrainState, batches: list[Any]) -> TrainState:
            for batch in batches:
                state, _ = self._step(state, batch, given, jnp.uint32(plan.seed), fixed)
            return state

        state, _ = turned(state)
        for _ in range(plan.steps // plan.round):
            batches = [next(data) for _ in range(plan.round)]
            if plan.oracle:
                tried = [turned(trained(_with_arm(state, arm), batches)) for arm in range(len(MODULES))]
                state, found = max(tried, key=lambda each: each[1]["reward"])
            else:
                state, found = turned(trained(state, batches))
            yield state, found


def _with_arm(state: TrainState, arm: int) -> TrainState:
    memory = {**state.collections[MEMORY][STATE], "arm": jnp.int32(arm)}
    return state._replace(collections={**state.collections, MEMORY: {STATE: memory}})
