"""What the study of merging trains, on what, and how: halves of the classes, networks, recipe, what is kept."""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import safetensors.numpy
from common import Records, rate_of

from kind_jax import model, partition
from kind_jax.classifying.config import ClassifyRun
from kind_jax.classifying.outputs import outputs
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import Network, ResNetConfig, ViTConfig
from kind_jax.config.training import RuleConfig
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.files import atomic_write_bytes
from kind_jax.merging import Model
from kind_jax.partition import Collections
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.short import Short

SIDE, HALF, CLASSES = 8, 5, 10
VALIDATION = {"digits": 0.2, "animals": 0.1}
TUNING_SEED = 100
BATCH = {"resnet": 32, "vit": 64}
STEPS = {
    ("digits", "resnet"): 240, ("animals", "resnet"): 240, ("digits", "vit"): 300, ("animals", "vit"): 400,
}  # fmt: skip
FEWER = {1: 1.0, 2: 1.0, 4: 1 / 2}
"""The widest networks get fewer steps, for want of time: this share."""
WIDE_RATE = {4: 0.1}
"""Of the widest networks: with the rate that was chosen at width 1, 0.3, one that trained first stayed at 81 % of its
validation images."""
RATES = {"resnet": (0.03, 0.1, 0.3), "vit": (1e-3, 3e-3)}

Part = Literal["train", "validation", "test"]


class Net(NamedTuple):
    """A network of the study: ``resnet`` with its multiplier of channels, or ``vit``."""

    kind: str
    width: int = 1

    @property
    def config(self) -> Network:
        sizes: dict[str, Any] = {"size": SIDE, "channels": 1, "num_classes": HALF}
        if self.kind == "vit":
            return ViTConfig(patch=2, width=64, depth=4, heads=4, **sizes)
        return ResNetConfig(depth=20, width=float(self.width), **sizes)

    @property
    def run(self) -> ClassifyRun:
        """Of all halves of all sets alike, so that one program serves them."""
        sgd = self.kind == "resnet"
        decay = (RuleConfig(path=r"params/.*/kernel", weight_decay=5e-4 if sgd else 0.05),)
        data = DataConfig(source="digits", classes=tuple(range(HALF)), validation=VALIDATION["digits"])
        return ClassifyRun(
            model=self.config, data=data, holdout="validation",
            optimizer=OptimizerConfig(method="sgd" if sgd else "adamw", clip=None if sgd else 1.0, rules=decay),
            train=TrainConfig(batch=BATCH[self.kind], ema=0.95),
        )  # fmt: skip

    def __str__(self) -> str:
        return "ViT" if self.kind == "vit" else f"ResNet-20 x{self.width}"


RESNETS = Net("resnet", 1), Net("resnet", 2), Net("resnet", 4)
VIT = Net("vit")


def halves(seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The classes of the two models of a pair."""
    order = [int(c) for c in np.random.default_rng(seed).permutation(CLASSES)]
    return tuple(sorted(order[:HALF])), tuple(sorted(order[HALF:]))


@functools.cache
def half(source: str, seed: int, which: int, part: Part) -> Dataset:
    """The images of one half of the classes, of 8 x 8 pixels."""
    config = DataConfig(
        source=source,  # pyright: ignore[reportArgumentType]
        classes=halves(seed)[which], flip=source == "animals", validation=VALIDATION[source]
    )  # fmt: skip
    found = open_dataset(config, part)
    records = found.source.gather(np.arange(len(found.source)))
    images = np.asarray(records["image"], np.float32)
    if images.shape[1] != SIDE:
        images = np.asarray(jax.image.resize(images, (len(images), SIDE, SIDE, 1), "linear", antialias=True))
    source_ = MemorySource(images=np.clip(images, -1, 1), labels=np.array(records["label"], np.int32))
    return dataclasses.replace(found, source=source_, image_shape=(SIDE, SIDE, 1))


@functools.cache
def program(net: Net) -> Short:
    return Short(task_of(net.run), rate_of)


def scored(found: Model, data: Dataset) -> tuple[float, float]:
    """Accuracy and cross-entropy."""
    logits = outputs(found.config, found.collections, data)[1]
    labels = data.source.gather(np.arange(len(data.source)))["label"]
    logs = np.asarray(jax.nn.log_softmax(logits))
    return float((logits.argmax(axis=1) == labels).mean()), float(-logs[np.arange(len(labels)), labels].mean())


class Base(NamedTuple):
    """A model that will be merged.

    Attributes:
      seed: of its pair: of the halves of the classes, and with ``which`` of weights and order.
      which: half of the classes, 0 or 1.
      share: of the usual steps.
    """

    source: str
    net: Net
    seed: int
    which: int
    share: float = 1.0

    @property
    def steps(self) -> int:
        return max(round(STEPS[self.source, self.net.kind] * self.share * FEWER[self.net.width]), 3)

    def __str__(self) -> str:
        part = "" if self.share == 1 else f", {self.share:g} of the steps"
        return f"{self.source}, {self.net}, seed {self.seed}, half {self.which}{part}"


def train(base: Base, rate: float) -> tuple[Collections, dict[str, Any]]:
    """Averaged weights, and what they took; seconds are those of the processor, without compiling."""
    begin, state, net = 0.0, None, base.net
    data, seed = half(base.source, base.seed, base.which, "train"), 2 * base.seed + base.which
    initial = model.init(net.config, seed)
    run = program(net).run(initial, data, rate=(rate, base.steps), seed=seed, steps=base.steps)
    for done, state, _ in run:
        if done == 2:
            jax.block_until_ready(state.collections)
            begin = time.process_time()
    assert state is not None
    jax.block_until_ready(state.collections)
    seconds = (time.process_time() - begin) * base.steps / (base.steps - 2)
    weights = jax.device_get(states.averaged(net.run, state))
    accuracy, loss = scored(Model(net.config, weights), half(base.source, base.seed, base.which, "validation"))
    figures = {"rate": rate, "steps": base.steps, "seconds": seconds, "validation": accuracy, "loss": loss}
    return weights, figures


def tuned(source: str, kind: str, records: Records) -> float:
    """The peak rate of a set and kind of network, by the validation split: width 1, half of the steps, a seed that is
    not reported."""
    scores = {}
    for rate in RATES[kind]:
        base = Base(source, Net(kind), TUNING_SEED, 0, 0.5)
        figures = records.get(f"tuning, {source}, {kind}, rate {rate:g}", lambda base=base, r=rate: train(base, r)[1])
        scores[rate] = figures["validation"], -figures["loss"]
    return max(scores, key=lambda rate: scores[rate])


def trained(base: Base, records: Records, out: Path) -> Model:
    """A model, from its file where it was kept."""
    rate = WIDE_RATE.get(base.net.width) or tuned(base.source, base.net.kind, records)
    config = base.net.config
    name = f"base, {base}"
    file = out / f"{name.replace(' ', '_').replace(',', '')}.safetensors"
    if not file.is_file():
        records.found.pop(name, None)

    def compute() -> dict[str, Any]:
        weights, figures = train(base, rate)
        atomic_write_bytes(file, safetensors.numpy.save(partition.flatten(weights)))
        return figures

    records.get(name, compute)
    wanted = model.definition(config)[1]
    weights = {name: {} for name in wanted} | partition.unflatten(safetensors.numpy.load_file(file))
    for collection in wanted:
        partition.check_like(weights[collection], wanted[collection], f"{file}: {collection}")
    return Model(config, weights)
