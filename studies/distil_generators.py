"""How many steps bring a small composed generator back to the whole one's quality?

    make study-distil-generators

A KIND generator of digits is cut by ``kind-jax compose`` to one class within 150,000 parameters, for each of the ten
classes; all components that fit in no more are left out, and quality falls. Hypotheses: (1) a few hundred steps of
training bring it back to what the whole model reaches; (2) learning the whole model's predictions takes fewer of them
than training on the class's images again, which are about 130.

Protocol. The whole model trains for 1200 steps as in the other studies. Each composed model is then trained with AdamW
at a constant rate, its weights averaged, once by the teacher's predictions alone and once by the data alone, in batches
of 32 of the images of its class, and judged after several numbers of steps: 50 samples of each class, ten classes
together, by class accuracy and by the Fréchet distance to training images in multiples of that of held-out images. The
rate of either way is the best of three for the mean distance after 50 and 200 steps, of another seed and three classes.
Every result is kept under --out, and an interrupted study continues.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from common import COUNT, Records, Referee, as_bundle, entry, markdown, plain, pretrained, report, spread

from kind_jax import partition
from kind_jax.config import change, load_file
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy.bundle import Bundle
from kind_jax.deploy.compose import compose
from kind_jax.distillation.generator_config import GeneratorConfig, generator_run
from kind_jax.distillation.generator_task import Drawn, GeneratorTask
from kind_jax.host import keep_memory
from kind_jax.nn.gate import learngenes_only
from kind_jax.partition import TAILORS, Collections, fingerprint
from kind_jax.plots import curves
from kind_jax.sampling import draw
from kind_jax.train import state as states
from kind_jax.train.short import Short
from kind_jax.train.task import Loss

CONFIG = Path(__file__).parents[1] / "configs" / "digits.py"
WAYS = {"predictions": (1.0, 0.0), "data": (0.0, 1.0)}
RATES = (3e-4, 1e-3, 3e-3)
TUNING_SEED, TUNING_CLASSES, TUNING_MARKS = 100, (0, 3, 7), (50, 200)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train, cut, train the cut models further in two ways, and compare."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 1200
    """Of the whole model."""
    size: int = 150_000
    """Most parameters of a composed model."""
    marks: tuple[int, ...] = (0, 10, 25, 50, 100, 200, 400)
    """Steps after which a model is judged."""
    out: Path = Path("runs/study-distil-generators")
    models: Path = Path("runs/study-models")
    """Trained models, shared by the studies."""


@dataclasses.dataclass(frozen=True)
class Weighted(GeneratorTask):
    """Both ways in one program: the weights of the two parts come with the teacher."""

    def loss(self, collections: Collections, drawn: Drawn, fixed: Collections) -> Loss:
        weights = fixed["params"]["weights"]
        teacher = {**fixed, "params": {k: v for k, v in fixed["params"].items() if k != "weights"}}
        parts = super().loss(collections, drawn, teacher).metrics
        value = weights[0] * parts["prediction"] + weights[1] * parts["denoising"]
        return Loss(value, parts | {"loss": value})


class Study:
    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        self.config = change(load_file(CONFIG), train={"steps": arguments.steps})
        arguments.out.mkdir(parents=True, exist_ok=True)
        arguments.models.mkdir(parents=True, exist_ok=True)
        self.referee = Referee.of(self.config.data, arguments.out / "judge.safetensors")
        settings = {name: getattr(arguments, name) for name in ("steps", "size", "marks")}
        self.records = Records(arguments.out / "records.json", settings)

    @functools.lru_cache(maxsize=4)  # noqa: B019 (one study a process)
    def whole(self, seed: int) -> Bundle:
        file = self.arguments.models / f"kind_{self.arguments.steps}_{seed}.safetensors"
        return as_bundle(self.config, pretrained(self.config, seed, file))

    @functools.lru_cache(maxsize=2)  # noqa: B019
    def trainer(self, seed: int, c: int) -> tuple[Bundle, Weighted, Short, Any]:
        """What is left of one class, and what trains it."""
        whole = self.whole(seed)
        made = compose(whole, classes=(c,), max_params=self.arguments.size).bundle
        network = self.config.model
        distil = GeneratorConfig(
            teacher="whole", classes=(c,), groups=made.groups, source=fingerprint(whole.collections), network=network
        )
        config = change(
            generator_run(made.config, distil),
            data={"only": (c,)}, train={"batch": 32, "null": 0.0, "ema": 0.98}, optimizer={"warmup": 0},
        )  # fmt: skip
        task = Weighted(config)
        dataset = open_dataset(config.data, "train")
        return made, task, Short(task, lambda count, peak: peak * jnp.ones_like(count, jnp.float32)), dataset

    def samples(self, seed: int, c: int, way: str, rate: float, marks: tuple[int, ...]) -> dict[int, np.ndarray]:
        """Of the student of one class after each number of steps."""
        made, task, short, dataset = self.trainer(seed, c)
        weights = dict(self.whole(seed).collections)
        weights[TAILORS] = partition.select(weights[TAILORS], (c,))
        weights["params"] = {**weights["params"], "weights": np.asarray(WAYS[way], np.float32)}
        found = {0: made.collections} if 0 in marks else {}
        run = short.run(made.collections, dataset, rate=rate, seed=seed, steps=max(marks), fixed=weights)
        for done, state, _ in run:
            if done in marks:
                found[done] = jax.tree.map(np.asarray, states.averaged(task.config, state))
        return {at: self._drawn(dataclasses.replace(made, collections=w), c) for at, w in found.items()}

    def _drawn(self, bundle: Bundle, c: int) -> np.ndarray:
        # Multiplied out, every composed model is the same program as the dense one: one compilation.
        dense = compose(bundle, classes=(c,), form="dense").bundle
        labels, gate = np.full(COUNT // 10, c, np.int32), learngenes_only()
        return draw(plain(dense.config), dense.collections, labels, gate, null_gate=gate, seed=1 + c)

    def judged(self, parts: list[tuple[int, np.ndarray]]) -> dict[str, float]:
        """Against the training images of these classes."""
        labels = np.concatenate([np.full(len(images), c, np.int32) for c, images in parts])
        known = open_dataset(self.config.data, "train").source
        wanted = np.isin(known.labels, [c for c, _ in parts])  # pyright: ignore[reportAttributeAccessIssue]
        referee = dataclasses.replace(self.referee, images=self.referee.images[wanted])
        return referee.score_images(np.concatenate([images for _, images in parts]), labels)

    def curve(self, seed: int, way: str, rate: float, classes: tuple[int, ...], marks: tuple[int, ...]) -> Any:
        """Scores after each number of steps, and the CPU seconds that all students took."""
        begin = time.process_time()
        found = {c: self.samples(seed, c, way, rate, marks) for c in classes}
        seconds = time.process_time() - begin
        scores = {str(at): self.judged([(c, found[c][at]) for c in classes]) for at in marks}
        return {"scores": scores, "cpu_seconds": seconds}

    def rate(self, way: str) -> float:
        """The one with the least mean distance after a few steps and after more."""

        def trial(rate: float) -> float:
            found = self.records.get(
                f"tuning | {way} | {rate:g}",
                lambda: self.curve(TUNING_SEED, way, rate, TUNING_CLASSES, TUNING_MARKS),
            )
            return float(np.mean([score["frechet"] for score in found["scores"].values()]))

        return min(RATES, key=trial)

    def exact(self, seed: int) -> dict[str, float]:
        """The whole model, a class at a time, nothing left out."""
        return self.judged([(c, self._drawn(compose(self.whole(seed), classes=(c,)).bundle, c)) for c in range(10)])


def main() -> None:
    keep_memory()
    arguments = tyro.cli(Arguments)
    study = Study(arguments)
    rates = {way: study.rate(way) for way in WAYS}
    whole = [study.records.get(f"whole | seed {s}", lambda s=s: study.exact(s)) for s in arguments.seeds]
    results: dict[str, list[Any]] = {way: [] for way in WAYS}
    for seed in arguments.seeds:
        for way, rate in rates.items():
            found = study.records.get(
                f"{way} | seed {seed}",
                lambda s=seed, w=way, r=rate: study.curve(s, w, r, tuple(range(10)), arguments.marks),
            )
            results[way].append(found)
    rows = [["steps", *(f"{way}: {what}" for way in WAYS for what in ("class accuracy", "Fréchet"))]]
    for at in arguments.marks:
        cells = [
            spread([run["scores"][str(at)][key] for run in results[way]], digits)
            for way in WAYS
            for key, digits in (("accuracy", 3), ("frechet", 2))
        ]
        rows.append([str(at), *cells])
    both = [spread([score[key] for score in whole], digits) for key, digits in (("accuracy", 3), ("frechet", 2))]
    rows.append(["the whole model", *both, *both])
    record = {
        "command": "make study-distil-generators", "arguments": dataclasses.asdict(arguments), "rates": rates,
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "machine": f"{platform.machine()}, {platform.processor() or 'CPU'}, jax {jax.__version__}",
        "real": study.referee.real, "whole": whole, "results": results, "tuning": {
            name: found for name, found in study.records.found.items() if name.startswith("tuning")
        },
    }  # fmt: skip
    lines = {
        way: [(max(at, 1), [run["scores"][str(at)]["frechet"] for run in results[way]]) for at in arguments.marks]
        for way in WAYS
    }
    lines["the whole model"] = [(at, [s["frechet"] for s in whole]) for at in (1, max(arguments.marks))]
    picture = curves(lines, "steps", "Fréchet, times train vs test", level=1.0)
    report(arguments.out, record, markdown(rows), {"distil_generators.png": picture})


if __name__ == "__main__":
    entry(main)
