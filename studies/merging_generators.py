"""Can two generators of different classes become one without training, and how few steps mend what is lost?

    make study-merging-generators

A KIND generator of the digits 0 to 4 and one of 5 to 9 are merged into one of all ten, for pairs that have more and
more in common: *independent* initialisations; the *same initialisation*, but other classes and another order of the
images; *siblings*, which both go on from one model that was trained on letters. Hypotheses: (1) independent models have
nothing in common that averaging or a joint decomposition could find, in whatever order their hidden units stand; (2)
the more the two have in common, the better a joint decomposition does, and the better than averaging; (3) a short
training on all ten digits mends a merged model in fewer steps than training from scratch takes.

Protocol. Each model of a pair trains for ``steps`` steps (siblings for half as many, after ``steps`` on letters) at the
preset's rate with its cosine. Every merged model, and a new one, is then trained on all ten digits at a constant rate
and judged after several numbers of steps: 500 samples, class accuracy, and Fréchet distance to training images in
multiples of that of held-out images. The weights that are judged are averaged (0.98). Rates are not tuned: merged
models take half of the preset's, a new one all of it. Every result is kept under --out, and an interrupted study
continues.
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
import safetensors.numpy
import tyro
from common import COUNT, Records, Referee, as_bundle, entry, markdown, plain, report, spread

from kind_jax import model, partition
from kind_jax.config import Config, DataConfig, change, load_file
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset
from kind_jax.deploy.bundle import Bundle
from kind_jax.files import atomic_write_bytes
from kind_jax.host import keep_memory
from kind_jax.merging.dense import mean_and_difference
from kind_jax.merging.generators import Merged, merge
from kind_jax.model import class_gate
from kind_jax.nn.gate import learngenes_only
from kind_jax.partition import PARAMS, TAILORS, Collections
from kind_jax.plots import curves
from kind_jax.sampling import draw
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.short import Short

CONFIG = Path(__file__).parents[1] / "configs" / "digits.py"
RATE, MENDING, WARMUP = 2e-3, 1e-3, 20
FOREVER = 1e9  # steps of a cosine that does not fall
HALVES = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
Pair = Literal["independent", "same initialisation", "siblings"]
PAIRS: tuple[Pair, ...] = ("independent", "same initialisation", "siblings")
WAYS: dict[str, dict[str, Any]] = {
    "average": {"method": "average", "align": "none"},
    "joint, 8 tailors": {"method": "joint", "align": "none"},
    "joint, 16 tailors": {"method": "joint", "align": "none", "learngenes": 32, "tailors": 16},
    "average, aligned": {"method": "average", "align": "weights"},
    "joint, 8 tailors, aligned": {"method": "joint", "align": "weights"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train pairs of models, merge each in several ways, train what comes out further, and compare."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 600
    """Of each model of a pair."""
    marks: tuple[int, ...] = (0, 50, 100, 200)
    """Steps after which a merged model is judged."""
    out: Path = Path("runs/study-merging-generators")


class Study:
    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        self.config = change(load_file(CONFIG), train={"ema": 0.98})
        self.digits, self.letters = (open_dataset(DataConfig(source=s), "train") for s in ("digits", "glyphs"))
        (arguments.out / "models").mkdir(parents=True, exist_ok=True)
        self.referee = Referee.of(self.config.data, arguments.out / "judge.safetensors")
        settings = {name: getattr(arguments, name) for name in ("steps", "marks")}
        self.records = Records(arguments.out / "records.json", settings)

    def structure(self, classes: int, tailors: int = 8) -> Config:
        return change(self.config, model={"num_classes": classes, "factor": {"tailors": tailors}})

    @functools.lru_cache(maxsize=4)  # noqa: B019 (one study a process)
    def short(self, config: Config) -> Short:
        """One program for all trainings of a structure: rate, and steps of the cosine."""

        def rate(count: Any, given: Any) -> Any:
            fall = 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(count / given[1], 1.0)))
            return given[0] * jnp.minimum((count + 1) / WARMUP, 1.0) * fall

        return Short(task_of(config), rate)

    def train(
        self, config: Config, initial: Collections, dataset: Dataset, given: tuple[float, float], seed: int,
        marks: tuple[int, ...],
    ) -> dict[int, Collections]:  # fmt: skip
        """Averaged weights after each number of steps."""
        found = {0: initial} if 0 in marks else {}
        run = self.short(config).run(initial, dataset, rate=np.array(given), seed=seed, steps=max(marks))
        for done, state, _ in run:
            if done in marks:
                found[done] = jax.tree.map(np.asarray, states.averaged(config, state))
        return found

    def kept(self, name: str, config: Config, make: Any) -> Collections:
        """Weights that are made once."""
        file = self.arguments.out / "models" / f"{name}.safetensors"
        if not file.is_file():
            begin, weights = time.monotonic(), make()
            atomic_write_bytes(file, safetensors.numpy.save(partition.flatten(weights)))
            print(f"{name} ({time.monotonic() - begin:.0f} s)", flush=True)
        weights = {n: {} for n in partition.COLLECTIONS} | partition.unflatten(safetensors.numpy.load_file(file))
        for n, wanted in model.definition(config.model)[1].items():
            partition.check_like(weights[n], wanted, f"{file}: {n}")
        return weights

    def half(self, pair: Pair, seed: int, i: int) -> Bundle:
        """One model of a pair."""
        config, steps = self.structure(5), self.arguments.steps
        drawn = 100 + seed if pair == "independent" and i else seed

        def make() -> Collections:
            initial, length = model.init(config.model, drawn), steps
            if pair == "siblings":
                base = self.kept(f"letters_{seed}", self.structure(10), lambda: self.letters_model(seed))
                # The tailors of the first five letters: any are as wrong for digits as others.
                initial = {**base, TAILORS: partition.select(base[TAILORS], range(5))}
                length = steps // 2
            data = open_dataset(dataclasses.replace(self.config.data, classes=HALVES[i]), "train")
            return self.train(config, initial, data, (RATE, length), seed + 100 * i, (length,))[length]

        shared = i == 0 and pair != "siblings"  # the first of a pair is the same in both
        name = f"{'alone' if shared else pair.replace(' ', '_')}_{i}_{seed}"
        bundle = as_bundle(config, self.kept(name, config, make))
        return dataclasses.replace(bundle, class_names=tuple(map(str, HALVES[i])), origin=Path(name))

    def letters_model(self, seed: int) -> Collections:
        steps = self.arguments.steps
        config = self.structure(10)
        return self.train(config, model.init(config.model, seed), self.letters, (RATE, steps), seed, (steps,))[steps]

    def samples(self, config: Config, weights: Collections, count: int, seed: int) -> np.ndarray:
        labels = np.arange(count, dtype=np.int32) % config.model.num_classes
        gate = class_gate(config.model)(jnp.asarray(labels), jnp.zeros(count, bool))
        return draw(plain(config), weights, labels, gate, null_gate=learngenes_only(), seed=seed, batch=count)

    def both(self, pair: Pair, seed: int) -> dict[str, Any]:
        """Both models kept, each drawing its own classes."""
        halves = [self.half(pair, seed, i) for i in (0, 1)]
        drawn = [self.samples(b.config, b.collections, COUNT // 2, seed) for b in halves]
        labels = np.arange(COUNT // 2, dtype=np.int32) % 5
        score = self.referee.score_images(np.concatenate(drawn), np.concatenate([labels, labels + 5]))
        params = [partition.flatten(b.collections[PARAMS]) for b in halves]
        apart = {path: mean_and_difference([p[path] for p in params], np.full(2, 0.5))[1] for path in params[0]}
        sizes = [sum(a.size for a in jax.tree.leaves(b.collections)) for b in halves]
        return {"score": score, "parameters": sum(sizes), "differences": apart}

    def merged(self, pair: Pair, seed: int, way: str) -> dict[str, Any]:
        """A merged model, and what further training makes of it."""
        begin = time.process_time()
        found: Merged = merge([self.half(pair, seed, i) for i in (0, 1)], **WAYS[way])
        seconds = time.process_time() - begin
        config = self.structure(10, found.layers[0].tailors)
        norms = np.array([layer.norm**2 for layer in found.layers])
        lost = float(np.average([1 - layer.energy for layer in found.layers], weights=norms))
        scores = self.mended(config, found.bundle.collections, MENDING, seed, self.arguments.marks)
        return {
            "scores": scores, "parameters": found.after, "lost": lost, "cpu_seconds": seconds,
            "error": float(np.mean([layer.error for layer in found.layers])),
        }  # fmt: skip

    def mended(
        self, config: Config, weights: Collections, rate: float, seed: int, marks: tuple[int, ...]
    ) -> dict[str, dict[str, float]]:
        found = self.train(config, weights, self.digits, (rate, FOREVER), 200 + seed, marks)
        labels = np.arange(COUNT, dtype=np.int32) % 10
        return {
            str(at): self.referee.score_images(self.samples(config, w, COUNT, seed), labels) for at, w in found.items()
        }

    def scratch(self, seed: int) -> dict[str, Any]:
        config = self.structure(10)
        weights = model.init(config.model, seed)
        sizes = sum(a.size for a in jax.tree.leaves(weights))
        return {"scores": self.mended(config, weights, RATE, seed, self.arguments.marks[1:]), "parameters": sizes}


def main() -> None:
    keep_memory()
    arguments = tyro.cli(Arguments)
    study, found = Study(arguments), {}
    for seed in arguments.seeds:
        new = study.records.get(f"scratch | seed {seed}", lambda s=seed: study.scratch(s))
        found.setdefault(("from scratch", ""), []).append(new)
        for way in ("both models kept", *WAYS):
            for pair in PAIRS:
                if way == "both models kept":
                    made = study.records.get(f"{pair} | seed {seed} | both", lambda p=pair, s=seed: study.both(p, s))
                elif pair == "independent" or "aligned" not in way:  # the others' hidden units are in one order
                    made = study.records.get(
                        f"{pair} | seed {seed} | {way}", lambda p=pair, s=seed, w=way: study.merged(p, s, w)
                    )
                else:
                    continue
                found.setdefault((pair, way), []).append(made)
    record = {
        "command": "make study-merging-generators", "arguments": dataclasses.asdict(arguments),
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "machine": f"{platform.machine()}, {platform.processor() or 'CPU'}, jax {jax.__version__}",
        "real": study.referee.real, "results": {f"{pair} | {way}": runs for (pair, way), runs in found.items()},
    }  # fmt: skip
    report(arguments.out, record, table(found, arguments.marks), {"merging_generators.png": picture(found, arguments)})


def table(found: dict[tuple[str, str], list[Any]], marks: tuple[int, ...]) -> str:
    """Class accuracy / Fréchet distance after each number of steps."""
    rows = [["models", "merged by", "parameters", "energy lost", *(f"{at} steps" for at in marks)]]
    for (pair, way), runs in sorted(found.items(), key=lambda entry: entry[0][0]):
        lost = spread([run["lost"] for run in runs], 2) if "lost" in runs[0] else ""
        cells = []
        for at in marks:
            scores = [run["score"] if "score" in run else run["scores"].get(str(at)) for run in runs]
            shown = scores[0] is not None and ("score" not in runs[0] or not at)
            cells.append(
                f"{spread([s['accuracy'] for s in scores], 2)} / {spread([s['frechet'] for s in scores], 1)}"
                if shown
                else ""
            )
        rows.append([pair, way, f"{runs[0]['parameters']:,}", lost, *cells])
    return markdown(rows)


def picture(found: dict[tuple[str, str], list[Any]], arguments: Arguments) -> bytes:
    """Fréchet distance against steps on all ten digits; no steps stand at 10."""
    shown = [("siblings", "joint, 8 tailors"), ("siblings", "average"), ("same initialisation", "joint, 8 tailors")]
    shown += [
        ("same initialisation", "average"),
        ("independent", "joint, 8 tailors"),
        ("from scratch", ""),
    ]
    lines = {}
    for pair, way in shown:
        runs = found[pair, way]
        lines[f"{pair}: {way}" if way else pair] = [
            (max(at, 10), [run["scores"][str(at)]["frechet"] for run in runs])
            for at in arguments.marks
            if str(at) in runs[0]["scores"]
        ]
    return curves(lines, "steps on all ten digits", "Fréchet, times train vs test", level=1.0)


if __name__ == "__main__":
    entry(main)
