"""What the study of distillation trains, on what, and how: sets, networks, teachers, generators, other images."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from common import Records

from kind_jax import model, partition
from kind_jax.classifying import network, start
from kind_jax.classifying.accuracy import measure
from kind_jax.classifying.config import HEAD, ClassifyRun
from kind_jax.classifying.outputs import outputs
from kind_jax.classifying.task import ClassifyTask
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
from kind_jax.config.networks import CNNConfig, EfficientNetConfig, Network, ResNetConfig
from kind_jax.config.training import CollectionConfig, RuleConfig
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.files import atomic_write_bytes
from kind_jax.interchange.incoming_classifier import load_efficientnet_lite0
from kind_jax.model import class_gate
from kind_jax.nn.gate import learngenes_only
from kind_jax.partition import PARAMS, Collections
from kind_jax.sampling import draw
from kind_jax.tasks import task_of
from kind_jax.train import sharding
from kind_jax.train import state as states
from kind_jax.train.short import Short
from kind_jax.train.task import Task

BATCH, CLASSES, AT_ONCE = 64, 10, 100  # AT_ONCE: synthetic images
TUNING_SEED = 100
FEATURES = "features"  # the column of a probe
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


def rate_of(count: Any, given: Any) -> Any:
    """Linear warm-up for a tenth of the steps, then a cosine to 0; ``given``: peak and steps."""
    peak, steps = given
    warmup = steps / 10
    done = jnp.clip((count - warmup) / (steps - warmup), 0, 1)
    return peak * jnp.where(count < warmup, (count + 1) / (warmup + 1), (1 + jnp.cos(jnp.pi * done)) / 2)


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


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A network that is fixed, adapted to the task.

    Attributes:
      seconds: what its adaptation took, and what one image takes.
      given: its features and logits of the training images, where they are not to be computed anew.
    """

    net: Network
    weights: Collections
    seconds: float
    an_image: float
    given: tuple[np.ndarray, np.ndarray] | None = None

    def of(self, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
        return outputs(self.net, self.weights, data)


def cnn(chosen: Set, share: float, seed: int, keep: Keeper) -> Teacher:
    """The teacher that is trained on the task."""
    net, data = chosen.cnn, split(chosen.name, "train", share)

    def compute() -> tuple[Collections, dict[str, Any]]:
        begun, task = model.init(net, seed), task_of(run_of(chosen, net))
        found, figures = train(task, begun, data, chosen.teacher_steps, 3e-3, seed)
        tried = {} if seed == TUNING_SEED else {"test": accuracy(chosen, net, found, "test")}
        return found, figures | tried

    name = f"{chosen.name}, {share:g}, seed {seed}: cnn"
    weights, figures = keep.weights(name, _blank(net), compute)
    return Teacher(net, weights, figures["seconds"], seconds_an_image(chosen, keep)["cnn"])


@functools.cache
def lite0(name: str) -> tuple[EfficientNetConfig, Collections]:
    """EfficientNet-Lite0 as ImageNet trained it, with a head for our classes that is still to be trained."""
    chosen, bundle = SETS[name], load_efficientnet_lite0()
    view = EfficientNetConfig(size=chosen.size, channels=1, num_classes=CLASSES, resolution=chosen.seen, colour=True)
    base = dataclasses.replace(run_of(chosen, view, frozen=True), head="fresh")
    config, weights = start.begin(start.adopt(base, bundle.config), bundle)
    assert isinstance(config.model, EfficientNetConfig)
    return config.model, weights


def features(chosen: Set, data: Dataset, name: str, keep: Keeper) -> np.ndarray:
    """EfficientNet's features of a data set, which depend on nothing that is trained here."""
    net, weights = lite0(chosen.name)
    return keep.get(f"{chosen.name}: features of {name}", lambda: ({"features": outputs(net, weights, data)[0]}, {}))[
        0
    ]["features"]


def lite0_logits(teacher: Teacher, found: np.ndarray) -> np.ndarray:
    return np.asarray(network.head(teacher.net, teacher.weights, jnp.asarray(found)))


def efficientnet(chosen: Set, share: float, seed: int, keep: Keeper) -> Teacher:
    """The teacher that ImageNet trained; a linear probe on the images of the task adapts it."""
    data = split(chosen.name, "train", share)
    net, base = lite0(chosen.name)
    seen = features(chosen, data, f"train, {share:g}", keep)
    image = seconds_an_image(chosen, keep)["efficientnet"]

    def compute() -> tuple[Collections, dict[str, Any]]:
        task = ClassifyTask(run_of(chosen, net, frozen=True), remembers=True)
        images, labels = images_of(data)
        fresh = {PARAMS: {HEAD: model.init(net, seed)[PARAMS][HEAD]}}
        begun = partition.overlay(base, fresh)
        columned = as_dataset(data, images, labels, **{FEATURES: seen})
        found, figures = train(task, begun, columned, chosen.probe_steps, 3e-3, seed)
        head = {PARAMS: {HEAD: found[PARAMS][HEAD]}}
        if seed == TUNING_SEED:
            return head, figures
        logits = lite0_logits(Teacher(net, found, 0, 0), features(chosen, split(chosen.name, "test"), "test", keep))
        right = float(np.mean(logits.argmax(axis=-1) == images_of(split(chosen.name, "test"))[1]))
        return head, figures | {"test": {"top1": right}}

    weights, figures = keep.weights(f"{chosen.name}, {share:g}, seed {seed}: efficientnet", base, compute)
    probed = Teacher(net, weights, figures["seconds"] + image * len(seen), image)
    # The real images' features were computed for the probe.
    return dataclasses.replace(probed, given=(seen, lite0_logits(probed, seen)))


def seconds_an_image(chosen: Set, keep: Keeper) -> dict[str, float]:
    """CPU seconds that a warm pass of each teacher takes for an image; the median of three rounds."""

    def compute() -> dict[str, float]:
        images, labels = images_of(split(chosen.name, "train"))
        data = as_dataset(split(chosen.name, "train"), images[:512], labels[:512])
        found = {}
        for name, (net, weights) in {
            "cnn": (chosen.cnn, model.init(chosen.cnn, 0)), "efficientnet": lite0(chosen.name)
        }.items():  # fmt: skip
            times = []
            for _ in range(4):
                begin = time.process_time()
                outputs(net, weights, data)
                times.append((time.process_time() - begin) / 512)
            found[name] = float(np.median(times[1:]))
        return found

    return keep.records.get(f"{chosen.name}: seconds of a teacher's image", compute)


def generator(chosen: Set, share: float, keep: Keeper) -> tuple[Collections, dict[str, Any]]:
    """A KIND trained on this share of the images; one for all seeds."""
    config = chosen.generator

    def compute() -> tuple[Collections, dict[str, Any]]:
        begun, data = model.init(config.model, 0), split(chosen.name, "train", share)
        return train(task_of(config), begun, data, chosen.generator_steps, 2e-3, 0)

    return keep.weights(f"{chosen.name}, {share:g}: generator", _blank(config.model), compute)


def pool(chosen: Set, share: float, multiple: int, keep: Keeper) -> tuple[Dataset, dict[str, Any]]:
    """What the generator of this share draws: so many images of each class for each of its real ones.

    The figures have the CPU seconds of one image, and the share in which the first teacher of all images sees the
    class that was asked for.
    """
    like = split(chosen.name, "train", share)
    assert like.counts is not None
    labels = np.repeat(np.arange(CLASSES, dtype=np.int32), np.asarray(like.counts) * multiple)

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        weights, config = generator(chosen, share, keep)[0], chosen.generator
        padded = np.resize(labels, -(-len(labels) // AT_ONCE) * AT_ONCE)
        gate = class_gate(config.model)(jnp.asarray(padded), jnp.zeros(len(padded), bool))
        given: dict[str, Any] = {"null_gate": learngenes_only(), "batch": AT_ONCE}
        first = jax.tree.map(lambda a: a[:AT_ONCE] if len(a) == len(padded) else a, gate)
        draw(config, weights, padded[:AT_ONCE], first, seed=1, **given)  # compiles
        begin = time.process_time()
        images = np.clip(draw(config, weights, padded, gate, seed=0, **given), -1, 1)
        seconds = (time.process_time() - begin) / len(padded)
        judge = cnn(chosen, 1.0, 0, keep)
        logits = judge.of(as_dataset(like, images[: len(labels)], labels))[1]
        agreed = float(np.mean(logits.argmax(axis=-1) == labels))
        return {"images": images[: len(labels)]}, {"an_image": seconds, "agreed": agreed, "images": len(labels)}

    found, figures = keep.get(f"{chosen.name}, {share:g}: {multiple}x drawn", compute)
    return as_dataset(like, found["images"], labels), figures


def _blank(net: Any) -> Collections:
    return {name: {} for name in model.definition(net)[1]}


def pre_trained(chosen: Set, seed: int, keep: Keeper) -> tuple[Collections, dict[str, Any]]:
    """The student after training on all other sets, with a fresh head for the task."""
    data = others(chosen.name)
    net = dataclasses.replace(chosen.student, num_classes=len(data.class_names))

    def compute() -> tuple[Collections, dict[str, Any]]:
        return train(task_of(run_of(chosen, net)), model.init(net, seed), data, chosen.pre_training_steps, 3e-3, seed)

    weights, figures = keep.weights(f"{chosen.name}, seed {seed}: pre-training", _blank(net), compute)
    head = model.init(chosen.student, seed)[PARAMS][HEAD]
    return weights | {PARAMS: weights[PARAMS] | {HEAD: head}}, figures
