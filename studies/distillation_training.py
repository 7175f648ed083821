"""What the study of distillation trains, on what, and how: sets, networks, recipe, pre-training, what is kept."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy
from common import Records, rate_of

from kind_jax import model, partition
from kind_jax.classifying.accuracy import measure
from kind_jax.classifying.config import HEAD, ClassifyRun
from kind_jax.config import (
    Config,
    DataConfig,
    DiffusionConfig,
    FactorConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    SamplerConfig,
    TrainConfig,
)
from kind_jax.config.networks import CNNConfig, Network, ResNetConfig
from kind_jax.config.training import CollectionConfig, RuleConfig
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.files import atomic_write_bytes
from kind_jax.partition import PARAMS, Collections
from kind_jax.tasks import task_of
from kind_jax.train import sharding
from kind_jax.train import state as states
from kind_jax.train.short import Short
from kind_jax.train.task import Task

BATCH, CLASSES = 64, 10
TUNING_SEED = 100
OTHERS = {"animals": ("digits", "glyphs", "textures"), "digits": ("animals", "glyphs", "textures")}
DECAY = (RuleConfig(path=r"params/.*/kernel", weight_decay=1e-2),)


class Set(NamedTuple):
    """One of the data sets, and what is trained on it.

    Attributes:
      size: pixels on a side.
      resolution: what the student scales images to; None for as they are.
      seen: what EfficientNet scales them to.
      validation: share of the training images.
      steps: of a student; of the generator, of the teacher from scratch, of a probe, and of pre-training.
    """

    name: str
    size: int
    resolution: int | None
    seen: int
    validation: float
    steps: int
    generator_steps: int
    teacher_steps: int
    probe_steps: int
    pre_training_steps: int

    @property
    def data(self) -> DataConfig:
        return DataConfig(source=self.name, validation=self.validation)  # pyright: ignore[reportArgumentType]

    @property
    def student(self) -> ResNetConfig:
        """About 20,000 parameters."""
        sizes: dict[str, Any] = {"size": self.size, "channels": 1, "num_classes": CLASSES}
        return ResNetConfig(depth=20, stages=(1, 1, 1), width=0.5, resolution=self.resolution, **sizes)

    @property
    def cnn(self) -> CNNConfig:
        return CNNConfig(size=self.size, channels=1, num_classes=CLASSES)

    @property
    def generator(self) -> Config:
        """A small KIND, whose patches are those of the set's preset."""
        large = self.size > 8
        return Config(
            model=ModelConfig(
                size=self.size, channels=1, patch=4 if large else 2, width=64, depth=3, heads=4, num_classes=CLASSES,
                label_embedding=False, learn_sigma=False, scan_unroll=0, factor=FactorConfig(learngenes=32, tailors=8),
            ),
            diffusion=DiffusionConfig(process="flow", prediction="clean" if large else "epsilon"),
            sampler=SamplerConfig(method="euler", steps=16, guidance=2.0 if large else 1.5),
            optimizer=OptimizerConfig(clip=1.0, b2=0.99 if large else 0.999),
            train=TrainConfig(batch=32 if large else 64, ema=0.995),
        )  # fmt: skip


SETS = {
    "digits": Set("digits", 8, None, 64, 0.2, 200, 1200, 150, 200, 1000),
    "animals": Set("animals", 28, 14, 112, 0.1, 300, 1200, 300, 200, 1000),
}


class Keeper:
    """Weights and images as files beside the records, so that nothing is trained or drawn twice."""

    def __init__(self, out: Path, records: Records) -> None:
        self.out, self.records = out, records
        self._read: dict[str, dict[str, np.ndarray]] = {}

    def get(
        self, name: str, compute: Callable[[], tuple[dict[str, np.ndarray], dict[str, Any]]]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays by name, and the figures that are recorded with them."""
        file = self.out / f"{name.replace(' ', '_').replace(',', '').replace(':', '')}.safetensors"
        if not file.is_file():
            self.records.found.pop(name, None)

        def run() -> dict[str, Any]:
            arrays, figures = compute()
            atomic_write_bytes(file, safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
            return figures

        figures = self.records.get(name, run)
        if name not in self._read:
            self._read[name] = safetensors.numpy.load_file(file)
        return self._read[name], figures

    def weights(
        self, name: str, base: Collections, compute: Callable[[], tuple[Collections, dict[str, Any]]]
    ) -> tuple[Collections, dict[str, Any]]:
        """Weights, laid over those of ``base``."""

        def run() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
            weights, figures = compute()
            return partition.flatten(weights), figures

        found, figures = self.get(name, run)
        return partition.overlay(base, partition.unflatten(found)), figures


@functools.cache
def split(name: str, part: str, share: float = 1.0) -> Dataset:
    config = dataclasses.replace(SETS[name].data, fraction=share)
    return open_dataset(config, part)  # pyright: ignore[reportArgumentType]


def images_of(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    found = dataset.source.gather(np.arange(len(dataset.source)))
    return found["image"], found["label"]


def as_dataset(like: Dataset, images: np.ndarray, labels: np.ndarray, **columns: np.ndarray) -> Dataset:
    source = MemorySource(images=np.array(images, np.float32), labels=np.array(labels, np.int32))
    return dataclasses.replace(like, source=source, columns=columns)


@functools.cache
def others(of: str) -> Dataset:
    """All images of the other packaged sets, in the size of this one; each of their classes is one."""
    images, labels, names, size = [], [], [], SETS[of].size
    for source in OTHERS[of]:
        parts = [open_dataset(DataConfig(source=source), part) for part in ("train", "test")]  # pyright: ignore[reportArgumentType]
        for part in parts:
            pixels, numbers = images_of(part)
            shape = (len(pixels), size, size, 1)
            images.append(np.clip(np.asarray(jax.image.resize(pixels, shape, "linear", antialias=True)), -1, 1))
            labels.append(numbers + len(names))
        names += parts[0].class_names
    whole = split(of, "train")
    return dataclasses.replace(
        as_dataset(whole, np.concatenate(images), np.concatenate(labels)), class_names=tuple(names)
    )


def run_of(chosen: Set, net: Network, frozen: bool = False) -> ClassifyRun:
    params = CollectionConfig(freeze=True, thaw=(HEAD,)) if frozen else CollectionConfig()
    return ClassifyRun(
        model=net, data=chosen.data, holdout="validation", optimizer=OptimizerConfig(rules=DECAY, params=params),
        train=TrainConfig(batch=BATCH, ema=0.98),
    )  # fmt: skip


@functools.cache
def program(task: Task) -> Short:
    return Short(task, rate_of)


def train(
    task: Task, initial: Collections, data: Dataset, steps: int, rate: float, seed: int, fixed: Any = None,
    curves: Sequence[str] = (),
) -> tuple[Collections, dict[str, Any]]:  # fmt: skip
    """Averaged weights, and what they took; seconds are those of the processor, without compiling.

    Args:
      curves: metrics that are kept of every fifth step.
    """
    begin, state, kept = 0.0, None, []
    run = program(task).run(initial, data, rate=(rate, steps), seed=seed, steps=steps, fixed=fixed)
    for done, state, metrics in run:
        if done == 2:
            jax.block_until_ready(state.collections)
            begin = time.process_time()
        if curves and (done == 1 or done % 5 == 0):
            kept.append((done, {name: metrics[name] for name in curves}))
    assert state is not None
    jax.block_until_ready(state.collections)
    seconds = (time.process_time() - begin) * steps / (steps - 2)
    weights = jax.device_get(states.averaged(task.config, state))
    figures: dict[str, Any] = {"rate": rate, "steps": steps, "seconds": seconds}
    if curves:
        found = jax.device_get(kept)
        figures["curves"] = {"step": [n for n, _ in found]} | {c: [float(m[c]) for _, m in found] for c in curves}
    return weights, figures


def accuracy(chosen: Set, net: Network, weights: Collections, part: str) -> dict[str, float]:
    mesh = sharding.make_mesh(MeshConfig())
    placed = jax.device_put({name: weights[name] for name in model.definition(net)[1]}, sharding.replicated(mesh))
    found = measure(net, placed, split(chosen.name, part), batch=256, mesh=mesh)
    return {"top1": found.top1, "loss": found.loss, "calibration_error": found.calibration_error}


def blank(net: Any) -> Collections:
    """Collections without weights."""
    return {name: {} for name in model.definition(net)[1]}


def pre_trained(chosen: Set, seed: int, keep: Keeper) -> tuple[Collections, dict[str, Any]]:
    """The student after training on all other sets, with a fresh head for the task."""
    data = others(chosen.name)
    net = dataclasses.replace(chosen.student, num_classes=len(data.class_names))

    def compute() -> tuple[Collections, dict[str, Any]]:
        return train(task_of(run_of(chosen, net)), model.init(net, seed), data, chosen.pre_training_steps, 3e-3, seed)

    weights, figures = keep.weights(f"{chosen.name}, seed {seed}: pre-training", blank(net), compute)
    head = model.init(chosen.student, seed)[PARAMS][HEAD]
    return weights | {PARAMS: weights[PARAMS] | {HEAD: head}}, figures
