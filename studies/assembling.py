"""Deep Model Assembling against end-to-end training, on animals: a small, deep ViT and few images.

    make study-assembling

Question: does a ViT that is trained as four modules inside a shallow meta model, assembled and fine-tuned (Ni et al.
2022, arXiv 2212.04129) recognise more held-out images than the same network trained end to end at the same cost?
Hypotheses, from the publication: (1) the modules fit each other before anything is fine-tuned, the better the longer
they were trained; (2) after fine-tuning the assembled network is at least as good as end-to-end training, and the
advantage grows with depth and as data get fewer.

Protocol. A pre-norm ViT of width 48 with patches of 7 pixels, 24 or 12 blocks, in four modules; AdamW, decay of
kernels, cosine, clip at 1, images mirrored at random, label smoothing 0.1, weights averaged with 0.99. With N = 1,536
steps of 16 images for end-to-end training, the meta model trains N, each module N / 3 and the fine-tuning N / 3 steps,
as the published 300, 100 and 100 epochs against 300; with 24 blocks that is exactly as many block-epochs. With 12
blocks ours are scaled by 3/4, for the same reason. Steps are the same for every share of the data. "Equal time" gives
end-to-end training as many steps as fit into the seconds that all our phases take one after the other, by the measured
seconds of a step of each; these are CPU seconds of one core, so that other processes do not count. Warm-up: N / 15 end
to end and for the meta model, a fifth for modules, none for fine-tuning; stochastic depth: none in the meta model, 0.1
in modules, tuned else (all published, but for the tuning). A module's budgets of a quarter and a half are runs of their
own with a whole schedule each. Frozen modules drop no branches. The subsets hold equally many images of each class, the
same for all methods of a seed; all data are not quite balanced. Random crops and batches of 64 images were given up
before anything was tuned: with them neither side learned enough in this time to be short of data.

Both sides are tuned with eight trials each at a quarter of the data, by the validation split, with a seed that is not
reported, separately for each depth: end to end four rates times two stochastic depths; ours two rates of meta model and
modules, by the assembled network, then three rates times two stochastic depths of fine-tuning. The rates were moved
until the best one of end-to-end training had a worse one on either side. A higher rate of fine-tuning was tried when
all was measured, is worse, and is on record without having been chosen from. The test split is measured once for each
final model. A share of 5 %, with 24 blocks, was added when the advantage did not grow as data got fewer.

Ablations, with 24 blocks and a quarter of the data: a meta model that was never trained, which is also the negative
control; modules that begin as copies of the meta module, also with 12 blocks; imitation, where module k learns to give
what the meta module gives for the same input (mean squared error; logits for the last) instead of lowering the loss; no
modular training, where the meta model's blocks are repeated and fine-tuned at once. Chance is 10 %. And, as modules had
not converged, both sides with 24 blocks and a quarter of the data once more with three times the steps.

Results are kept under --out, and an interrupted study continues.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro
from assembling_picture import ABLATIONS, BUDGETS, picture, tables
from assembling_training import (
    BATCH,
    ImitationTask,
    K,
    Recipe,
    accuracy,
    imitated,
    module_settings,
    settings,
    subset,
    train,
)
from common import Records, entry, report

from kind_jax import model
from kind_jax.assembling import Module, assemble
from kind_jax.assembling.task import ModuleTask, around, beginning
from kind_jax.data.sets import Dataset
from kind_jax.host import keep_memory
from kind_jax.partition import Collections, fingerprint
from kind_jax.tasks import task_of

TUNING_SEED, TUNING_SHARE = 100, 25
END_TO_END = tuple((rate, drop) for rate in (2.5e-4, 5e-4, 1e-3, 2e-3) for drop in (0.0, 0.1))
MODULAR = (1e-3, 2e-3)
BEYOND = (2e-3, 0.0), (2e-3, 0.1)
LONGER = 3
COPIED = "begun as the meta module", "no modular training"
FINE_TUNING = tuple((rate, drop) for rate in (2.5e-4, 5e-4, 1e-3) for drop in (0.0, 0.1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Tune both sides, train all models with each seed, and measure them on the test split."""

    seeds: tuple[int, ...] = (0, 1, 2)
    depths: tuple[int, ...] = (24, 12)
    shares: tuple[int, ...] = (25, 100, 50, 5)
    """Per cent of the training data."""
    out: Path = Path("runs/study-assembling")
    steps: int = 1536
    """Steps of end-to-end training, N, a multiple of 48."""
    quick: bool = False
    """48 steps, to see that everything works; the figures then mean nothing."""


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
        begun = module_settings(depth, k, init="meta" if how in COPIED else "random", seed=seed)
        weights = beginning(begun, meta)
        if how != "no modular training":
            weights, cost = train(task, weights, data, Recipe(rate, steps, steps // 5), seed, fixed)
            costs.append(cost)
        modules.append(Module(network=network, depths=depths, index=k, collections=weights, source=source))
    return assemble(modules).collections, costs


def tune(depth: int, budget: Budget, records: Records) -> Chosen:
    """Eight trials of each side, chosen by the validation split."""
    data, seed = subset(TUNING_SHARE, TUNING_SEED), TUNING_SEED

    def of(name: str, compute: Callable[[], dict[str, Any]]) -> float:
        return records.get(f"tuning, {depth} blocks, {name}", compute)["validation"]

    def scored(found: tuple[Collections, dict[str, Any]]) -> dict[str, Any]:
        return {"validation": accuracy(found[0], depth, "validation")} | found[1]

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
        recipe = Recipe(rate, budget.fine_tuning, 0)
        return scored(train_whole(depth, drop, data, recipe, seed, assembled(best)[0]))

    def grid(name: str, compute: Any, trials: Any) -> Any:
        score = {t: of(f"{name}, rate {t[0]:g}, drop {t[1]:g}", functools.partial(compute, *t)) for t in trials}
        return max(score, key=lambda t: score[t])

    chosen = grid("end to end", whole, END_TO_END)
    scores = {rate: of(f"modules, rate {rate:g}", functools.partial(modular, rate)) for rate in MODULAR}
    best = max(scores, key=lambda rate: scores[rate])
    found = Chosen(chosen, best, grid("fine-tuning", fine, FINE_TUNING))
    grid("fine-tuning beyond the grid", fine, BEYOND)  # for the record
    return found


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
        rate, drop = self.chosen.fine_tuning
        recipe = Recipe(rate, self.budget.fine_tuning, 0)
        found, cost = train_whole(self.depth, drop, self.data, recipe, self.seed, assembled)
        return {"test": accuracy(found, self.depth, "test"), **cost}

    def ours(self) -> dict[str, Any]:
        """All phases; test accuracy of the assembled network after each modular budget, and after fine-tuning."""
        meta, cost = self.meta
        before: dict[str, float] = {}
        full, modules = {}, []
        for name, share in BUDGETS.items():
            full, modules = self.modules(meta, round(self.budget.modular * share), "incubation")
            before[name] = accuracy(full, self.depth, "test")
        meta_found = {"test": accuracy(meta, K, "test"), **cost}
        return {"meta": meta_found, "modules": modules, "assembled": before, "fine_tuning": self.fine_tuned(full)}

    def longer(self) -> dict[str, Any]:
        """Both sides with three times the steps and the same rates, and modules that begin as copies."""
        cell = dataclasses.replace(self, budget=Budget.of(LONGER * self.budget.end_to_end, self.depth))
        meta, cost = cell.meta
        found: dict[str, Any] = {
            "end to end": cell.end_to_end(cell.budget.end_to_end),
            "meta": {"test": accuracy(meta, K, "test"), **cost},
        }
        for how in ("incubation", COPIED[0]):
            full, modules = cell.modules(meta, cell.budget.modular, how)
            before = accuracy(full, self.depth, "test")
            found[how] = {"modules": modules, "assembled": before, "fine_tuning": cell.fine_tuned(full)}
        return found

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
    keep_memory()
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
            for seed in arguments.seeds if share >= 25 or depth == 24 else ():
                cell, name = Cell(depth, share, seed, budget, chosen), f"{depth} blocks, {share} %, seed {seed}"
                equal = functools.partial(cell.end_to_end, budget.end_to_end)
                records.get(f"{name}: end to end, equal block-epochs", equal)
                equal = functools.partial(cell.end_to_end, times["steps of equal time"])
                records.get(f"{name}: end to end, equal time", equal)
                records.get(f"{name}: ours", cell.ours)
                for how in ABLATIONS.get((depth, share), ()):
                    records.get(f"{name}: {how}", functools.partial(cell.ablation, how))
                if (depth, share) == (24, 25):
                    records.get(f"{name}: three times the steps", cell.longer)
    record = {
        "what": "Deep Model Assembling against end-to-end training on the ten animals: a ViT of width 48, patch 7, in "
        "four modules; test top-1 of 1,941 images; recipes chosen on the validation split at 25 % of the data",
        "command": "make study-assembling", "commit": _commit(), "seeds": list(arguments.seeds),
        "machine": f"one CPU core (virtual), Python {platform.python_version()}, jax {jax.__version__}, float32",
        "settings": {
            "steps": arguments.steps, "batch": BATCH, "modules": K, "tuning_seed": TUNING_SEED, "chance": 0.1,
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
