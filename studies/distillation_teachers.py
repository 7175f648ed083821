"""Who teaches in the study of distillation, and who draws: teachers, generators and their images."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from distillation_training import (
    CLASSES,
    SETS,
    TUNING_SEED,
    Keeper,
    Set,
    accuracy,
    as_dataset,
    blank,
    images_of,
    run_of,
    split,
    train,
)

from kind_jax import model, partition
from kind_jax.classifying import network, start
from kind_jax.classifying.config import HEAD
from kind_jax.classifying.outputs import outputs
from kind_jax.classifying.task import ClassifyTask
from kind_jax.config.networks import EfficientNetConfig, Network
from kind_jax.data.sets import Dataset
from kind_jax.interchange.incoming_classifier import load_efficientnet_lite0
from kind_jax.model import class_gate
from kind_jax.nn.gate import learngenes_only
from kind_jax.partition import PARAMS, Collections
from kind_jax.sampling import draw
from kind_jax.tasks import task_of

AT_ONCE = 100  # synthetic images
FEATURES = "features"  # the column of a probe


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
    weights, figures = keep.weights(name, blank(net), compute)
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

    return keep.weights(f"{chosen.name}, {share:g}: generator", blank(config.model), compute)


def nearest(chosen: Set, share: float, multiple: int, keep: Keeper) -> dict[str, float]:
    """Root-mean-square distance of drawn and of test images from the nearest training image, on average."""

    def compute() -> dict[str, float]:
        known = images_of(split(chosen.name, "train", share))[0]
        rng, found = np.random.default_rng(0), {}
        for name, data in {"drawn": pool(chosen, share, multiple, keep)[0], "test": split(chosen.name, "test")}.items():
            images = rng.permutation(images_of(data)[0])[:200]
            found[name] = float(np.mean([np.sqrt(np.mean((known - a) ** 2, axis=(1, 2, 3)).min()) for a in images]))
        return found

    return keep.records.get(f"{chosen.name}, {share:g}: nearest training image", compute)


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
