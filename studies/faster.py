"""Token routing (TREAD) and Model Guidance against plain training, in equal training time.

    make study-faster

Hypotheses: in the same training time each of the two reaches at most 0.8 of plain training's Fréchet distance, for a
dense DiT and for KIND; neither loosens the tie between tailors and classes. Plain training is also sampled with
classifier-free guidance of the scale that Model Guidance trains with, at twice the cost of a sample.

Protocol. Digits (16 tokens; with ``--data animals``, whose package must be installed, 49 tokens) and six blocks.
Rate, warm-up, average, batch and everything else are one for all; no setting was chosen on any result: routing skips
half of the tokens in the blocks 1 to 4, guidance has the published scale of 1.5 and begins after a quarter of plain
training. A step of each way is timed in CPU seconds, the ways in turn, and each trains as many steps as fit in the
time of ``steps`` plain ones. The learning rate is constant, so that every mark on the way counts. Samples are judged
by class accuracy and by the Fréchet distance to training images, in multiples of that of the held-out images. Every
result is kept under --out, and an interrupted study continues.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import subprocess
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from common import Records, Referee, entry, markdown, plain, report, spread

from kind_jax import model, partition
from kind_jax.config import Config, change, load_file
from kind_jax.data.dataset import open_dataset
from kind_jax.diffusing.task import DiffusionTask
from kind_jax.evaluating.diversion import inputs
from kind_jax.host import keep_memory
from kind_jax.nn.gate import learngenes_only
from kind_jax.plots import curves
from kind_jax.sampling import draw
from kind_jax.train import state as states
from kind_jax.train.short import Short

CONFIGS = Path(__file__).parents[1] / "configs"
SCALE, SHARES = 1.5, (0.25, 0.5, 1.0)
ROUTE = {"rate": 0.5, "first": 1, "last": 4}
NAMES = {"dense": "dense DiT", "kind": "KIND"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train both models in all ways with each seed, and compare."""

    data: Literal["digits", "animals"] = "digits"
    seeds: tuple[int, ...] = (0, 1, 2)
    ways: tuple[Literal["plain", "routing", "guidance", "both"], ...] = ("plain", "routing", "guidance")
    steps: int = 450
    """Plain steps, whose time every way has."""
    width: int = 48
    batch: int = 32
    rate: float = 2e-3
    count: int = 500
    """Samples of each measurement."""
    sampler: int = 15
    """Steps of the sampler."""
    out: Path = Path("runs/study-faster")


class Study:
    """Both models in all ways, and what has been measured of them."""

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        settings = {k: v for k, v in dataclasses.asdict(arguments).items() if k not in ("seeds", "out")}
        arguments.out.mkdir(parents=True, exist_ok=True)
        self.records = Records(arguments.out / "results.json", settings)
        base = change(
            load_file(CONFIGS / f"{arguments.data}.py"),
            model={"width": arguments.width, "depth": 6, "scan_unroll": 1,
                   "factor": {"learngenes": arguments.width // 2, "tailors": 6}},
            train={"batch": arguments.batch, "ema": 0.99, "steps": 10 * arguments.steps},
            optimizer={"schedule": "constant", "warmup": 0},
            sampler={"method": "euler", "steps": arguments.sampler, "guidance": 1.0},
        )  # fmt: skip
        assert isinstance(base, Config)
        self.models = {
            "dense": change(base, model={"label_embedding": True, "factor": {"projections": ()}}),
            "kind": base,
        }
        self.shorts: dict[tuple[str, str], Short] = {}
        self.data = open_dataset(base.data, "train")
        self.referee = Referee.of(base.data, arguments.out / "judge.safetensors")

    def config(self, name: str, way: str, start: int) -> Config:
        """Of a model trained in one way, whose guidance begins after so many steps."""
        routed, guided = way in ("routing", "both"), way in ("guidance", "both")
        return change(
            self.models[name], routing=ROUTE if routed else {},
            guidance={"scale": SCALE, "start": start} if guided else {},
        )  # fmt: skip

    @functools.cached_property
    def start(self) -> int:
        """Steps of plain training before guidance."""
        return self.arguments.steps // 4

    def short(self, name: str, way: str) -> Short:
        """The compiled step of every seed."""
        if (name, way) not in self.shorts:
            self.shorts[name, way] = self._short(name, way)
        return self.shorts[name, way]

    def _short(self, name: str, way: str) -> Short:
        return Short(DiffusionTask(self.config(name, way, self.start)), lambda n, r: r * jnp.minimum(1, (n + 1) / 50))

    def timed(self, rounds: int = 6, steps: int = 5) -> dict[str, float]:
        """Median CPU seconds of a step of each model and way; with guidance, of one that is guided."""
        runs, times = {}, {}
        for name in self.models:
            for way in self.arguments.ways:
                ahead = self.start + 2 if way in ("guidance", "both") else 2
                weights = model.init(self.models[name].model, 0)
                run = self.short(name, way).run(weights, self.data, rate=1e-3, seed=0, steps=ahead + rounds * steps)
                for _ in range(ahead):
                    jax.block_until_ready(next(run)[2])
                runs[f"{name} {way}"], times[f"{name} {way}"] = run, []
        for _ in range(rounds):
            for key, run in runs.items():
                begin = time.process_time()
                for _ in range(steps):
                    jax.block_until_ready(next(run)[2])
                times[key].append((time.process_time() - begin) / steps)
        return {key: float(np.median(found)) for key, found in times.items()}

    def marks(self, seconds: dict[str, float], name: str, way: str) -> list[int]:
        """Steps that fit in each share of the time; before guidance begins they take the time of those without it."""
        before = "routing" if way == "both" else "plain" if way == "guidance" else way
        early, late = seconds[f"{name} {before}"], seconds[f"{name} {way}"]
        total = self.arguments.steps * seconds[f"{name} plain"]

        def steps(limit: float) -> int:
            first = limit / early
            return round(first if first <= self.start else self.start + (limit - self.start * early) / late)

        return [steps(share * total) for share in SHARES]

    def flops(self, name: str, way: str, steps: int) -> float:
        """Of so many steps."""
        before = "routing" if way == "both" else "plain" if way == "guidance" else way
        early, late = (DiffusionTask(self.config(name, each, 0)).flops() for each in (before, way))
        first = min(steps, self.start)
        return first * early + (steps - first) * late

    def score(self, config: Config, weights: partition.Collections, condition: str, scale: float) -> dict[str, float]:
        """Of samples with the right label and tailors, or as :mod:`kind_jax.evaluating.diversion` calls it."""
        count = self.arguments.count
        labels = np.arange(count, dtype=np.int32) % config.model.num_classes
        embedded, gate = inputs(config, condition, labels)
        sampled = dataclasses.replace(config.sampler, guidance=scale)
        images = draw(
            plain(config), weights, embedded, gate, null_gate=learngenes_only(), seed=1, sampler=sampled, batch=count
        )
        return self.referee.score_images(images, labels)

    def measured(self, name: str, way: str, seed: int, marks: list[int]) -> dict[str, Any]:
        """Train one model, and judge it on the way."""
        config, rate = self.config(name, way, self.start), self.arguments.rate
        run = self.short(name, way).run(
            model.init(config.model, seed), self.data, rate=rate, seed=seed, steps=max(marks)
        )
        curve, weights, cpu, begin = [], None, 0.0, time.process_time()
        for done, state, metrics in run:
            if done == 1:
                jax.block_until_ready(metrics)
                begin = time.process_time()  # behind the compilation
            if done in marks:
                weights = jax.tree.map(np.asarray, states.averaged(config, state))
                cpu += time.process_time() - begin
                found = self.score(config, weights, "complete", 1.0)
                curve.append({"steps": done, "flops": self.flops(name, way, done), "cpu_seconds": cpu, **found})
                begin = time.process_time()
        found: dict[str, Any] = {"curve": curve}
        if way in ("plain", "routing"):
            found["guided"] = self.score(config, weights or {}, "complete", SCALE)
        if name == "kind":
            for condition in ("wrong_tailors", "learngenes_only"):
                found[condition] = self.score(config, weights or {}, condition, 1.0)
        return found


def summary(study: Study, results: dict[str, list[dict[str, Any]]], marks: dict[str, list[int]]) -> str:
    """Two tables: quality after the same training time, and who knows the class."""
    head = [
        "",
        "steps",
        "training FLOPs",
        "Fréchet",
        "of plain",
        "class accuracy",
        "with guidance: Fréchet",
        "accuracy",
    ]
    rows, tied = [head], [["KIND, trained", "right tailors", "wrong tailors", "learngenes alone"]]
    for name in NAMES:
        base = [run["curve"][-1]["frechet"] for run in results[f"{name} plain"]]
        for way in study.arguments.ways:
            runs = results[f"{name} {way}"]
            if not runs:
                continue
            last, guided = [run["curve"][-1] for run in runs], [run["guided"] for run in runs if "guided" in run]
            ratio = [each["frechet"] / of for each, of in zip(last, base, strict=False)]
            rows.append([
                f"{NAMES[name]}, {way}", str(marks[f"{name} {way}"][-1]), f"{last[0]['flops'] / 1e12:.2f} T",
                spread([each["frechet"] for each in last], 1), spread(ratio, 2),
                spread([each["accuracy"] for each in last], 3),
                spread([each["frechet"] for each in guided], 1) if guided else "",
                spread([each["accuracy"] for each in guided], 3) if guided else "",
            ])  # fmt: skip
            if name == "kind":
                tailors = ([run[c]["accuracy"] for run in runs] for c in ("wrong_tailors", "learngenes_only"))
                tied.append([way, spread([each["accuracy"] for each in last], 3), *(spread(v, 3) for v in tailors)])
    return f"{markdown(rows)}\n{markdown(tied)}"


def main() -> None:
    keep_memory()
    arguments = tyro.cli(Arguments, description=__doc__)
    study = Study(arguments)
    seconds = study.records.get("CPU seconds of a step", study.timed)
    keys = [(name, way) for name in NAMES for way in study.arguments.ways]
    marks = {f"{name} {way}": study.marks(seconds, name, way) for name, way in keys}
    results: dict[str, list[dict[str, Any]]] = {key: [] for key in marks}
    for seed in arguments.seeds:
        for name, way in keys:
            key = f"{name} {way}"
            found = functools.partial(study.measured, name, way, seed, marks[key])
            results[key].append(study.records.get(f"{key} | seed {seed}", found))
    record = {
        "command": "make study-faster", "arguments": dataclasses.asdict(arguments),
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "machine": f"one of 2 CPU cores (virtual), Python {platform.python_version()}, jax {jax.__version__}, float32",
        "real": study.referee.real, "cpu_seconds_of_a_step": seconds, "steps": marks, "results": results,
    }  # fmt: skip
    lines = {
        f"{NAMES[name]}, {way}": [
            (run[i]["flops"], [each["curve"][i]["frechet"] for each in results[f"{name} {way}"]])
            for i in range(len(SHARES))
            for run in [results[f"{name} {way}"][0]["curve"]]
        ]
        for name, way in keys
    }
    picture = curves(lines, "training FLOPs", "Fréchet, times train vs test")
    report(arguments.out, record, summary(study, results, marks), {"faster.png": picture})


if __name__ == "__main__":
    entry(main)
