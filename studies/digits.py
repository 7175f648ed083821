"""How good are digits from KIND, who knows the classes, and what does the initialisation matter?

    make study-digits                                            # the main comparison
    make study-digits ARGS='--part diversion --steps 1200'       # three ways of telling the network its class
    make study-digits ARGS='--part energy --steps 600'           # four ways of dealing out the initial energy

Hypotheses: (1) KIND's samples are no worse than those of a dense DiT of the same width and depth trained for the same
wall time. (2) The tailors carry the class: without them accuracy is at chance, and a wrong class's tailors win over the
right label. Both models have the same config apart from the variant; the learning rate was tuned for neither.

Every finished training is kept under --out and not repeated. The dense model's steps come from the ratio of step times,
measured interleaved on this machine before training.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from common import entry, images_of, markdown, report, spread

from kind_jax import model
from kind_jax.config import Config, change, load_file
from kind_jax.deploy.bundle import open_bundle
from kind_jax.evaluating.diversion import diversion
from kind_jax.evaluating.judge import Judge, train_judge
from kind_jax.evaluating.quality import quality, train_vs_test
from kind_jax.files import atomic_write_text
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.loop import train
from kind_jax.train.step import make_step

CONFIG = Path(__file__).parents[1] / "configs" / "digits.py"
COUNT = 500  # samples of each condition: as many as there are held-out images, so that distances compare


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train the variants of one part of the study and summarise them."""

    part: Literal["main", "diversion", "energy"] = "main"
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int | None = None
    """Steps of the KIND variants; default: as configured."""
    out: Path = Path("runs/study-digits")


def variants(part: str, base: Config) -> dict[str, Config]:
    """The configs that a part compares."""
    if part == "main":
        dense = {"label_embedding": True, "factor": {"projections": ()}}
        return {"kind": base, "dense": change(base, model=dense)}
    if part == "diversion":
        embedded = change(base, model={"label_embedding": True})
        return {
            "no_embedding": base,
            "embedding_dropped_half": change(embedded, train={"embedding_dropout": 0.5}),
            "embedding": embedded,
        }
    kinds = ("none", "rescale", "shuffle", "shuffle_rescale")
    return {kind: change(base, model={"factor": {"energy": kind}}) for kind in kinds}


def step_times(configs: dict[str, Config], rounds: int = 10, steps: int = 10) -> dict[str, float]:
    """Median seconds of a step of each config, rounds interleaved."""
    rng = np.random.default_rng(0)
    runs: dict[str, list[Any]] = {}
    times: dict[str, list[float]] = {name: [] for name in configs}
    for name, config in configs.items():
        size, m = config.train.batch, config.model
        batch = {
            "image": jax.numpy.asarray(rng.standard_normal((size, m.size, m.size, m.channels), np.float32)),
            "label": jax.numpy.asarray(np.arange(size, dtype=np.int32) % m.num_classes),
        }
        f = jax.jit(make_step(task_of(config)), donate_argnums=0)
        start = jax.jit(functools.partial(states.start, task_of(config)))(model.init(m, 0))
        runs[name] = [f, f(start, batch)[0], batch]
    for _ in range(rounds):
        for name, run in runs.items():
            jax.block_until_ready(run[1])
            begin = time.perf_counter()
            for _ in range(steps):
                run[1], _ = run[0](run[1], run[2])
            jax.block_until_ready(run[1])
            times[name].append((time.perf_counter() - begin) / steps)
    return {name: float(np.median(t)) for name, t in times.items()}


def measure(directory: Path, judge: Judge, train_images: np.ndarray, test_images: np.ndarray) -> dict[str, Any]:
    """Every condition of one run, the distance to held-out images, and how close samples come to training images."""
    bundle = open_bundle(directory)
    conditions = diversion(bundle.config, bundle.collections, judge, train_images, count=COUNT, seed=1)
    labels = np.arange(COUNT, dtype=np.int32) % bundle.config.model.num_classes
    samples = bundle.sample(labels, seed=1)
    against_test = quality(judge, samples, labels, test_images)["frechet"]

    def nearest(images: np.ndarray) -> float:
        a, b = images.reshape(len(images), -1), train_images.reshape(len(train_images), -1)
        return float(np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1).min(1)).mean())

    return {
        "conditions": conditions,
        "frechet_to_test": against_test,
        "nearest_training_image": nearest(samples),
        "nearest_training_image_of_test": nearest(test_images),
    }


def run_one(config: Config, directory: Path, judged: tuple[Judge, np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Train and measure, or read what an earlier call found."""
    result = directory / "result.json"
    if result.is_file():
        return json.loads(result.read_text())
    begin = time.monotonic()
    train(config, directory)
    found = {"steps": config.train.steps, "seconds": time.monotonic() - begin, **measure(directory, *judged)}
    atomic_write_text(result, json.dumps(found, indent=1))
    return found


def summarise(part: str, results: dict[str, list[dict[str, Any]]], real: dict[str, float]) -> str:
    """A Markdown table of all variants: mean and standard deviation over seeds."""
    head = ["variant", "steps", "class accuracy", "Fréchet / train-vs-test", "null embedding, right tailors",
            "right embedding, no tailors", "right embedding, wrong tailors", "follows the tailors"]  # fmt: skip
    rows = [head]
    for name, runs in results.items():

        def of(condition: str, key: str, runs: list[dict[str, Any]] = runs) -> list[float]:
            # A model without a label embedding is not measured with and without it: the figures are the same.
            same = {"tailors_only": "complete", "no_tailors": "learngenes_only"}
            found = [run["conditions"] for run in runs]
            return [(c[condition] if condition in c else c[same[condition]])[key] for c in found]

        rows.append([
            name, str(runs[0]["steps"]), spread(of("complete", "class_accuracy"), 3),
            spread([f / real["frechet"] for f in of("complete", "frechet")], 3),
            *(spread(of(c, "class_accuracy"), 3) for c in ("tailors_only", "no_tailors", "wrong_tailors")),
            spread(of("wrong_tailors", "follows_tailors"), 3),
        ])  # fmt: skip
    note = f"Real held-out images: accuracy {real['class_accuracy']:.3f}, Fréchet distance {real['frechet']:.3f}."
    return f"### {part}\n\n" + markdown(rows) + f"\n{note}\n"


def main() -> None:
    arguments = tyro.cli(Arguments)
    base = load_file(CONFIG)
    steps = arguments.steps or base.train.steps
    base = change(base, train={"steps": steps, "sample_every": 0, "checkpoint_every": 0, "log_every": 500})
    configs = variants(arguments.part, base)
    folder = arguments.out / arguments.part
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = images_of(base.data, "train")
    test_images, test_labels = images_of(base.data, "test")
    judge = train_judge(
        images, labels, base.model.num_classes, seed=0, cache=arguments.out / "judge.safetensors",
        held_out=(test_images, test_labels), show=True,
    )  # fmt: skip
    print(f"the judge itself is {judge.held_out}", flush=True)
    real = train_vs_test(judge, images, test_images, test_labels)
    timing: dict[str, float] = {}
    if arguments.part == "main":
        kept = folder / "step_times.json"
        timing = json.loads(kept.read_text()) if kept.is_file() else step_times(configs)
        atomic_write_text(kept, json.dumps(timing, indent=1))
        equal_time = round(steps * timing["kind"] / timing["dense"])
        configs["dense"] = change(configs["dense"], train={"steps": equal_time})
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in configs}
    for seed in arguments.seeds:
        for name, config in configs.items():
            seeded = change(config, train={"seed": seed}, data={"seed": seed})
            where = folder / f"{name}_steps{config.train.steps}_seed{seed}"
            results[name].append(run_one(seeded, where, (judge, images, test_images)))
    table = summarise(arguments.part, results, real)
    record = {"real": real, "step_seconds": timing, "seeds": arguments.seeds, "results": results}
    report(folder, record, table)


if __name__ == "__main__":
    entry(main)
