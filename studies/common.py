"""What the studies share: configs, judge, short trainings that compile once, results that survive an interruption."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from kind_jax import adapters, model, partition
from kind_jax.config import Config, DataConfig, change
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset
from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError
from kind_jax.evaluating.judge import Judge, train_judge
from kind_jax.evaluating.quality import quality, train_vs_test
from kind_jax.files import atomic_write_bytes, atomic_write_text
from kind_jax.model import class_gate
from kind_jax.nn.gate import learngenes_only
from kind_jax.sampling import draw
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.freeze import moving
from kind_jax.train.optimizer import learning_rate
from kind_jax.train.short import Short

COUNT = 500  # samples of each measurement
STEPS = 25  # of the sampler: the studies measure many models


def rate_of(count: Any, given: Any) -> Any:
    """Linear warm-up for a tenth of the steps, then a cosine to 0; ``given``: peak and steps."""
    peak, steps = given
    warmup = steps / 10
    done = jnp.clip((count - warmup) / (steps - warmup), 0, 1)
    return peak * jnp.where(count < warmup, (count + 1) / (warmup + 1), (1 + jnp.cos(jnp.pi * done)) / 2)


def images_of(data: DataConfig, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a split."""
    source = open_dataset(data, split).source
    records = source.gather(np.arange(len(source)))
    return records["image"], records["label"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Referee:
    """Judges samples of one data set by class accuracy and by Fréchet distance relative to held-out real images."""

    judge: Judge
    images: np.ndarray
    classes: int
    real: dict[str, float]

    @classmethod
    def of(cls, data: DataConfig, cache: Path) -> Referee:
        images, labels = images_of(data, "train")
        test_images, test_labels = images_of(data, "test")
        classes = int(labels.max()) + 1
        held_out = test_images, test_labels
        judge = train_judge(images, labels, classes, seed=0, cache=cache, held_out=held_out, show=True)
        print(f"the judge itself is {judge.held_out}", flush=True)
        return cls(
            judge=judge, images=images, classes=classes, real=train_vs_test(judge, images, test_images, test_labels)
        )

    def score(
        self, config: Config, collections: partition.Collections, *, seed: int, count: int = COUNT
    ) -> dict[str, float]:
        """``accuracy``, and ``frechet`` in multiples of the distance of held-out from training images."""
        labels = np.arange(count, dtype=np.int32) % self.classes
        gate = class_gate(config.model)(jnp.asarray(labels), jnp.zeros(count, bool))
        samples = draw(plain(config), collections, labels, gate, null_gate=learngenes_only(), seed=seed, batch=count)
        return self.score_images(samples, labels)

    def score_images(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        found = quality(self.judge, images, labels, self.images)
        return {"accuracy": found["class_accuracy"], "frechet": found["frechet"] / self.real["frechet"]}


def plain(config: Config) -> Config:
    """Only what sampling depends on, so that models of one structure share a compiled sampler."""
    sampler = dataclasses.replace(config.sampler, steps=STEPS, guidance=1.0)
    return Config(model=config.model, diffusion=config.diffusion, sampler=sampler)


class Trainer:
    """Short trainings of one config at any learning rate and seed, in one compiled program."""

    def __init__(self, config: Config, dataset: Dataset | None = None) -> None:
        unit = change(config, optimizer={"learning_rate": 1.0})
        shape = learning_rate(unit.optimizer, unit.train.steps)

        self.config = config
        self._short = Short(task_of(unit), lambda count, peak: peak * shape(count))
        self.dataset = dataset or open_dataset(config.data, "train")

    def run(
        self, initial: partition.Collections, *, rate: float, seed: int, at: Sequence[int]
    ) -> dict[int, partition.Collections]:
        """Averaged weights, adapters merged, after each number of steps in ``at``."""
        found = {}
        for done, state, _ in self._short.run(initial, self.dataset, rate=rate, seed=seed, steps=max(at)):
            if done in at:
                averaged = jax.tree.map(np.asarray, states.averaged(self.config, state))
                found[done] = jax.tree.map(np.asarray, adapters.merge(self.config.transfer, averaged))
        return found


def trained_parameters(config: Config, initial: partition.Collections) -> int:
    """Numbers that the optimizer moves."""
    return sum(leaf.size for leaf in jax.tree.leaves(moving(config.optimizer, initial)))


class Records:
    """Results by name in one JSON file, each written as soon as it is known, so that a study continues where it was."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Open or begin the file.

        Raises:
          UserError: the file is damaged, or holds results of other settings.
        """
        self.path = path
        self.settings = json.loads(json.dumps(settings, default=str))
        self.found: dict[str, Any] = {}
        if path.is_file():
            try:
                saved = json.loads(path.read_bytes())
                was, self.found = saved["settings"], saved["results"]
            except (ValueError, KeyError, TypeError) as e:
                raise UserError(f"{path} is damaged, remove it to begin the study anew: {e}.") from e
            changed = [f"{n} was {was.get(n)!r}, now {v!r}" for n, v in self.settings.items() if was.get(n) != v]
            if changed:
                raise UserError(f"{path} holds results of other settings ({'; '.join(changed)}); choose another --out.")

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result of this name, computed unless an earlier call or run did."""
        if name not in self.found:
            begin = time.monotonic()
            found = compute()
            self.found[name] = json.loads(json.dumps(found))
            atomic_write_text(self.path, json.dumps({"settings": self.settings, "results": self.found}, indent=1))
            print(f"{name}: {json.dumps(found)[:150]}  ({time.monotonic() - begin:.0f} s)", flush=True)
        return self.found[name]


def entry(main: Callable[[], None]) -> None:
    """Run a study's main; the user's mistakes are one sentence and exit code 2."""
    try:
        main()
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        sys.exit(75)


def pretrained(config: Config, seed: int, file: Path, dataset: Dataset | None = None) -> partition.Collections:
    """Averaged weights after the config's own steps, rate and schedule; read from ``file`` where they were kept."""
    wanted = model.definition(config.model)[1]
    if not file.is_file():
        begin = time.monotonic()
        trainer = Trainer(config, dataset)
        rate, steps = config.optimizer.learning_rate, config.train.steps
        weights = trainer.run(model.init(config.model, seed), rate=rate, seed=seed, at=[steps])[steps]
        atomic_write_bytes(file, safetensors.numpy.save(partition.flatten(weights)))
        print(f"{file.stem}: {steps} steps ({time.monotonic() - begin:.0f} s)", flush=True)
    weights = {name: {} for name in wanted} | partition.unflatten(safetensors.numpy.load_file(file))
    for name in wanted:
        partition.check_like(weights[name], wanted[name], f"{file}: {name}")
    return weights


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def as_bundle(config: Config, weights: partition.Collections) -> Bundle:
    """Weights of a study as what the verbs after training take."""
    return Bundle(
        config=config,
        collections=weights,
        groups=tuple(range(config.model.num_groups)),
        class_names=tuple(map(str, range(config.model.num_classes))),
        weights="ema",
        step=config.train.steps,
        origin=Path(),
    )


def report(folder: Path, record: Mapping[str, Any], text: str, pictures: Mapping[str, bytes] | None = None) -> None:
    """Write and print the summary, write the pictures, and say where everything lies."""
    files = {"summary.json": json.dumps(record, indent=1, default=str).encode(), "summary.md": text.encode()}
    files |= dict(pictures or {})
    for name, data in files.items():
        atomic_write_bytes(folder / name, data)
    print(f"\n{text}")
    for name in files:
        print(f"  {folder / name}")
