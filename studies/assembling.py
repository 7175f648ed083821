"""Deep Model Assembling against end-to-end training, on animals: a small, deep ViT and few images.

    make study-assembling

Question: does a ViT that is trained as four modules inside a shallow meta model, assembled and fine-tuned (Ni et al.
2022, arXiv 2212.04129) recognise more held-out images than the same network trained end to end at the same cost?
Hypotheses, from the publication: (1) the modules fit each other before anything is fine-tuned, the better the longer
they were trained; (2) after fine-tuning the assembled network is at least as good as end-to-end training, and the
advantage grows with depth and as data get fewer.

Protocol. A pre-norm ViT of width 48 with patches of 7 pixels, 24 or 12 blocks, in four modules; AdamW, decay of kernels,
cosine, clip at 1, flips and crops, label smoothing 0.1, weights averaged with 0.99. With N = 768 steps of 64 images for
end-to-end training, the meta model trains N, each module N / 3 and the fine-tuning N / 3 steps, as the published 300,
100 and 100 epochs against 300; with 24 blocks that is exactly as many block-epochs. With 12 blocks ours are scaled by
3/4, for the same reason. Steps are the same for every share of the data. "Equal time" gives end-to-end training as many
steps as fit into the seconds that all our phases take one after the other, by the measured seconds of a step of each;
these are CPU seconds of one core, so that other processes do not count. Warm-up: N / 15 end to end and for the meta
model, a fifth for modules, none for fine-tuning; stochastic depth: none in the meta model, 0.1 in modules, tuned else
(all published). A module's budgets of a quarter and a half are runs of their own with a whole schedule each. Frozen
modules drop no branches. The subsets hold equally many images of each class, the same for all methods of a seed.

Both sides are tuned with eight trials each at a quarter of the data, by the validation split, with a seed that is not
reported, separately for each depth: end to end four rates times two stochastic depths; ours two rates of meta model and
modules, then three rates times two stochastic depths of fine-tuning. The test split is measured once for each final
model.

Ablations, at a quarter of the data: a meta model that was never trained, which is also the negative control; modules
that begin as copies of the meta module; imitation, where module k learns to give what the meta module gives for the
same input (mean squared error; logits for the last) instead of lowering the loss. Chance is 10 %.

Results are kept under --out, and an interrupted study continues.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if sys.platform == "linux":  # glibc returns large blocks after each step, a third of its time in deep networks
    for _option, _value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**27), (-8, 1)):  # M_MMAP_MAX, _TRIM_, _TOP_PAD, _ARENA_MAX
        ctypes.CDLL(None).mallopt(_option, _value)

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from assembling_imitation import ImitationTask, imitated
from assembling_picture import picture, tables
from common import Records, entry, report

from kind_jax import model
from kind_jax.assembling import Module, assemble
from kind_jax.assembling.config import ModuleConfig, module_run
from kind_jax.assembling.task import ModuleTask, around, beginning
from kind_jax.classifying.accuracy import measure
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import DataConfig, MeshConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import ViTConfig
from kind_jax.config.training import RuleConfig
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.partition import Collections, fingerprint
from kind_jax.tasks import task_of
from kind_jax.train import sharding
from kind_jax.train import state as states
from kind_jax.train.short import Short
from kind_jax.train.task import Task

K = 4  # modules
DATA = DataConfig(source="animals", flip=True, validation=0.1)
TUNING_SEED, TUNING_SHARE = 100, 25
END_TO_END = tuple((rate, drop) for rate in (1e-3, 2e-3, 3e-3, 4e-3) for drop in (0.0, 0.1))
MODULAR = (2e-3, 4e-3)
FINE_TUNING = tuple((rate, drop) for rate in (1e-3, 2e-3, 4e-3) for drop in (0.0, 0.1))
BUDGETS = ("1/4", "1/2", "all")
ABLATIONS = ("untrained meta model", "begun as the meta module", "imitation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Tune both sides, train all models with each seed, and measure them on the test split."""

    seeds: tuple[int, ...] = (0, 1, 2)
    depths: tuple[int, ...] = (24, 12)
    shares: tuple[int, ...] = (25, 100, 50)
    """Per cent of the training data."""
    out: Path = Path("runs/study-assembling")
    steps: int = 1536
    """Steps of end-to-end training, N, a multiple of 48."""
    quick: bool = False
    """48 steps, to see that everything works; the figures then mean nothing."""


class Recipe(NamedTuple):
    """Peak rate, steps, and steps of warm-up; one program is compiled for all of them."""

    rate: float
    steps: int
    warmup: int


class Chosen(NamedTuple):
    """What tuning has found: rate and stochastic depth of both sides, and the rate of meta model and modules."""

    end_to_end: tuple[float, float]
    modular: float
    fine_tuning: tuple[float, float]


class Budget(NamedTuple):
    """Steps of each phase."""

    end_to_end: int
    meta: int
    modular: int
    fine_tuning: int

    @classmethod
    def of(cls, steps: int, depth: int) -> Budget:
        ours = steps if depth == 24 else steps * 3 // 4
        found = cls(steps, ours, ours // 3, ours // 3)
        blocks = found.meta * K + K * found.modular * (depth // K + K - 1) + found.fine_tuning * depth
        assert blocks == steps * depth, "not as many block-epochs"
        return found


def settings(depth: int, drop_path: float) -> ClassifyRun:
    """The whole network or the meta model; the rate is :func:`rate_of`'s."""
    return ClassifyRun(
        model=ViTConfig(
            size=28, channels=1, num_classes=10, patch=7, width=48, heads=3, depth=depth, drop_path=drop_path
        ),
        data=DATA,
        holdout="validation",
        smoothing=0.1,
        optimizer=OptimizerConfig(clip=1.0, rules=(RuleConfig(path=r"params/.*/kernel", weight_decay=0.05),)),
        train=TrainConfig(batch=16, ema=0.99),
    )


def module_settings(depth: int, index: int, drop_path: float = 0.1, init: str = "random", seed: int = 0) -> Any:
    module = ModuleConfig(depths=(depth // K,) * K, index=index, init=init)  # pyright: ignore[reportArgumentType]
    found = module_run(settings(depth, drop_path), module)
    return dataclasses.replace(found, train=dataclasses.replace(found.train, seed=seed))


@functools.cache
def split(name: str) -> Dataset:
    return open_dataset(DATA, name)  # pyright: ignore[reportArgumentType]


@functools.cache
def subset(share: int, seed: int) -> Dataset:
    """Equally many training images of each class, those of a smaller share among those of a larger; 100: all."""
    whole = split("train")
    if share == 100:
        return whole
    found = whole.source.gather(np.arange(len(whole.source)))
    order = np.random.default_rng(seed).permutation(len(whole.source))
    labels, count = found["label"][order], round(len(order) * share / 1000)
    kept = np.sort(np.concatenate([order[labels == c][:count] for c in range(10)]))
    source = MemorySource(images=found["image"][kept], labels=found["label"][kept])
    return dataclasses.replace(whole, source=source)


def rate_of(count: Any, recipe: Any) -> Any:
    """Linear warm-up, then a cosine to 0; ``recipe`` is a :class:`Recipe` as an array."""
    peak, steps, warmup = recipe
    done = jnp.clip((count - warmup) / jnp.maximum(steps - warmup, 1), 0, 1)
    return peak * jnp.where(count < warmup, count / jnp.maximum(warmup, 1), (1 + jnp.cos(jnp.pi * done)) / 2)


@functools.cache
def program(task: Task) -> Short:
    return Short(task, rate_of)


def train(
    task: Task, initial: Collections, data: Dataset, recipe: Recipe, seed: int, fixed: Any = None
) -> tuple[Collections, dict[str, Any]]:
    """Averaged weights of the last step, and what they took; seconds are those of the processor, without compiling."""
    last, begin, state = [], 0.0, None
    run = program(task).run(initial, data, rate=recipe, seed=seed, steps=recipe.steps, fixed=fixed)
    for done, state, metrics in run:
        if done == 2:
            jax.block_until_ready(state.collections)
            begin = time.process_time()
        if done > recipe.steps - 20:
            last.append((metrics["loss"], metrics["accuracy"]))
    assert state is not None
    weights = jax.device_get(states.averaged(task.config, state))
    seconds = (time.process_time() - begin) * recipe.steps / (recipe.steps - 2)
    loss, right = np.asarray(jax.device_get(last)).mean(axis=0).tolist()
    return weights, {
        "rate": recipe.rate, "steps": recipe.steps, "seconds": seconds, "flops": task.flops() * recipe.steps,
        "block_steps": recipe.steps * _blocks(task), "train_loss": loss, "train_accuracy": right,
    }  # fmt: skip


def _blocks(task: Task) -> int:
    config: Any = task.config
    return sum(config.module.hybrid) if isinstance(task, ModuleTask) else config.model.depth


def accuracy(weights: Collections, depth: int, name: str) -> float:
    mesh = sharding.make_mesh(MeshConfig())
    placed = jax.device_put(weights, sharding.replicated(mesh))
    return measure(settings(depth, 0.0).model, placed, split(name), batch=256, mesh=mesh).top1


def train_whole(
    depth: int, drop: float, data: Dataset, recipe: Recipe, seed: int, initial: Collections | None = None
) -> tuple[Collections, dict[str, Any]]:
    config = settings(depth, drop)
    weights = model.init(config.model, seed) if initial is None else initial
    return train(task_of(config), weights, data, recipe, seed)


def train_meta(data: Dataset, rate: float, steps: int, seed: int) -> tuple[Collections, dict[str, Any]]:
    return train_whole(K, 0.0, data, Recipe(rate, steps, steps // 15), seed)


def train_modules(
    depth: int, data: Dataset, rate: float, steps: int, seed: int, meta: Collections, how: str = "incubation"
) -> tuple[Collections, list[dict[str, Any]]]:
    """Train all modules around a meta model, and assemble them."""
    modules, costs, depths = [], [], (depth // K,) * K
    network, source = settings(depth, 0.0).model, fingerprint(meta)
    for k in range(K):
        config = module_settings(depth, k, drop_path=0.0 if how == "imitation" else 0.1)
        task, fixed = ModuleTask(config), around(config, meta)
        if how == "imitation":
            task, fixed = ImitationTask(config), imitated(config, meta) | {"around": fixed}
        begun = module_settings(depth, k, init="meta" if how == "begun as the meta module" else "random", seed=seed)
        weights, cost = train(task, beginning(begun, meta), data, Recipe(rate, steps, steps // 5), seed, fixed)
        modules.append(Module(network=network, depths=depths, index=k, collections=weights, source=source))
        costs.append(cost)
    return assemble(modules).collections, costs


def fine_tune(
    depth: int, data: Dataset, recipe: tuple[float, float], steps: int, seed: int, assembled: Collections
) -> tuple[Collections, dict[str, Any]]:
    rate, drop = recipe
    return train_whole(depth, drop, data, Recipe(rate, steps, 0), seed, assembled)


def tune(depth: int, budget: Budget, records: Records) -> Chosen:
    """Eight trials of each side, chosen by the validation split."""
    data, seed = subset(TUNING_SHARE, TUNING_SEED), TUNING_SEED

    def of(name: str, compute: Callable[[], dict[str, Any]]) -> float:
        return records.get(f"tuning, {depth} blocks, {name}", compute)["validation"]

    def scored(found: tuple[Collections, dict[str, Any]], at: int = depth) -> dict[str, Any]:
        return {"validation": accuracy(found[0], at, "validation")} | found[1]

    def whole(rate: float, drop: float) -> dict[str, Any]:
        steps = budget.end_to_end
        return scored(train_whole(depth, drop, data, Recipe(rate, steps, steps // 15), seed))

    @functools.cache
    def assembled(rate: float) -> tuple[Collections, float]:
        meta = train_meta(data, rate, budget.meta, seed)[0]
        found = train_modules(depth, data, rate, budget.modular, seed, meta)[0]
        return found, accuracy(meta, K, "validation")

    def modular(rate: float) -> dict[str, Any]:
        found, meta = assembled(rate)
        return {"validation": accuracy(found, depth, "validation"), "validation_of_meta_model": meta}

    def fine(rate: float, drop: float) -> dict[str, Any]:
        return scored(fine_tune(depth, data, (rate, drop), budget.fine_tuning, seed, assembled(best)[0]))

    def grid(name: str, compute: Any, trials: Any) -> Any:
        score = {t: of(f"{name}, rate {t[0]:g}, drop {t[1]:g}", functools.partial(compute, *t)) for t in trials}
        return max(score, key=lambda t: score[t])

    chosen = grid("end to end", whole, END_TO_END)
    scores = {rate: of(f"modules, rate {rate:g}", functools.partial(modular, rate)) for rate in MODULAR}
    best = max(scores, key=lambda rate: scores[rate])
    return Chosen(chosen, best, grid("fine-tuning", fine, FINE_TUNING))


@dataclasses.dataclass(frozen=True)
class Cell:
    """One depth, share of the data and seed."""

    depth: int
    share: int
    seed: int
    budget: Budget
    chosen: Chosen

    @property
    def data(self) -> Dataset:
        return subset(self.share, self.seed)

    def end_to_end(self, steps: int) -> dict[str, Any]:
        rate, drop = self.chosen.end_to_end
        found, cost = train_whole(self.depth, drop, self.data, Recipe(rate, steps, steps // 15), self.seed)
        return {"test": accuracy(found, self.depth, "test"), **cost}

    @functools.cached_property
    def meta(self) -> tuple[Collections, dict[str, Any]]:
        return train_meta(self.data, self.chosen.modular, self.budget.meta, self.seed)

    def modules(self, meta: Collections, steps: int, how: str) -> tuple[Collections, list[dict[str, Any]]]:
        return train_modules(self.depth, self.data, self.chosen.modular, steps, self.seed, meta, how)

    def fine_tuned(self, assembled: Collections) -> dict[str, Any]:
        found, cost = fine_tune(
            self.depth, self.data, self.chosen.fine_tuning, self.budget.fine_tuning, self.seed, assembled
        )
        return {"test": accuracy(found, self.depth, "test"), **cost}

    def ours(self) -> dict[str, Any]:
        """All phases; test accuracy of the assembled network after each modular budget, and after fine-tuning."""
        meta, cost = self.meta
        before: dict[str, float] = {}
        full, modules = {}, []
        for name, divisor in zip(BUDGETS, (4, 2, 1), strict=True):
            full, modules = self.modules(meta, self.budget.modular // divisor, "incubation")
            before[name] = accuracy(full, self.depth, "test")
        meta_found = {"test": accuracy(meta, K, "test"), **cost}
        return {"meta": meta_found, "modules": modules, "assembled": before, "fine_tuning": self.fine_tuned(full)}

    def ablation(self, how: str) -> dict[str, Any]:
        untrained = how == "untrained meta model"
        meta = model.init(settings(K, 0.0).model, self.seed) if untrained else self.meta[0]
        full, modules = self.modules(meta, self.budget.modular, how)
        before = accuracy(full, self.depth, "test")
        return {"modules": modules, "assembled": before, "fine_tuning": self.fine_tuned(full)}


def seconds_of_steps(depth: int, chosen: Chosen, budget: Budget) -> dict[str, float]:
    """CPU seconds of a warm step of each phase, the median of three rounds, and the steps of equal time."""
    data, steps = subset(25, 0), min(40, budget.modular)
    meta = model.init(settings(K, 0.0).model, 0)
    whole = functools.partial(train_whole, depth, data=data, seed=0)
    phases: dict[str, Callable[[], tuple[Any, Any]]] = {
        "end to end": lambda: whole(drop=chosen.end_to_end[1], recipe=Recipe(1e-3, steps, 0)),
        "meta": lambda: train_meta(data, 1e-3, steps, 0),
        "fine-tuning": lambda: whole(drop=chosen.fine_tuning[1], recipe=Recipe(1e-3, steps, 0)),
    }
    found: dict[str, list[float]] = {}
    for _ in range(3):
        for name, run in phases.items():
            found.setdefault(name, []).append(run()[1]["seconds"] / steps)
        for k, cost in enumerate(train_modules(depth, data, 1e-3, steps, 0, meta)[1]):
            found.setdefault(f"module {k}", []).append(cost["seconds"] / steps)
    cost = {name: float(np.median(values)) for name, values in found.items()}
    modules = sum(cost[f"module {k}"] for k in range(K)) * budget.modular
    ours = cost["meta"] * budget.meta + modules + cost["fine-tuning"] * budget.fine_tuning
    return cost | {"ours": ours, "steps of equal time": round(ours / cost["end to end"])}


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.quick:
        arguments = dataclasses.replace(arguments, steps=48)
    arguments.out.mkdir(parents=True, exist_ok=True)
    records = Records(arguments.out / "results.json", {"steps": arguments.steps})
    for depth in arguments.depths:
        budget = Budget.of(arguments.steps, depth)
        chosen = tune(depth, budget, records)
        step = functools.partial(seconds_of_steps, depth, chosen, budget)
        times = records.get(f"seconds of a step, {depth} blocks", step)
        for share in arguments.shares:
            for seed in arguments.seeds:
                cell, name = Cell(depth, share, seed, budget, chosen), f"{depth} blocks, {share} %, seed {seed}"
                equal = functools.partial(cell.end_to_end, budget.end_to_end)
                records.get(f"{name}: end to end, equal block-epochs", equal)
                equal = functools.partial(cell.end_to_end, times["steps of equal time"])
                records.get(f"{name}: end to end, equal time", equal)
                records.get(f"{name}: ours", cell.ours)
                if depth == 24 and share == 25:
                    for how in ABLATIONS:
                        records.get(f"{name}: {how}", functools.partial(cell.ablation, how))
    record = {
        "what": "Deep Model Assembling against end-to-end training on the ten animals: a ViT of width 48, patch 7, in "
        "four modules; test top-1 of 1,941 images; recipes chosen on the validation split at 25 % of the data",
        "command": "make study-assembling", "commit": _commit(), "seeds": list(arguments.seeds),
        "machine": f"one CPU core (virtual), Python {platform.python_version()}, jax {jax.__version__}, float32",
        "settings": {
            "steps": arguments.steps, "batch": 16, "modules": K, "tuning_seed": TUNING_SEED, "chance": 0.1,
            "budgets": {d: Budget.of(arguments.steps, d)._asdict() for d in arguments.depths},
            "images": {share: len(subset(share, 0).source) for share in arguments.shares},
        },
        "results": records.found,
    }  # fmt: skip
    report(arguments.out, record, tables(record), {"assembling.png": picture(record)})


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    entry(main)
