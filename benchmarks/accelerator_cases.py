"""The models that are timed on an accelerator, by size and by name, and their states on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import dense, kind

from kind_jax.config import Config, change
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.state import TrainState
from kind_jax.train.task import Batch

PER_CLASS = 8  # samples of one class in a row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """A size of model and batch; all have patches of 2 x 2 and 4 channels."""

    width: int
    depth: int
    tokens: int
    batch: int
    classes: int


SIZES = {
    "tiny": Size(width=32, depth=1, tokens=16, batch=16, classes=40),
    "S/2": Size(width=384, depth=12, tokens=256, batch=128, classes=150),
    "B/2": Size(width=768, depth=12, tokens=256, batch=64, classes=150),
    # With 150 classes and 80 tailors each, bank, moments and average would be 82 GB.
    "L/2": Size(width=1024, depth=24, tokens=256, batch=32, classes=40),
}


def settings_of(size: str, *, tailors: int, dtype: str = "bfloat16", **model: Any) -> Config:
    """The KIND model of a size; the stack is scanned, as in the published configs."""
    return kind(**dataclasses.asdict(SIZES[size]), tailors=tailors, **{"scan_unroll": 1, "dtype": dtype, **model})


def grouped(config: Config, per_class: int = PER_CLASS) -> Config:
    """The same run on batches of ``per_class`` consecutive samples of each class."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, per_class=per_class))


def variants(size: str) -> dict[str, Callable[[], Config]]:
    """What is timed of a size, by name: everything against ``dense``, which comes first.

    Those that need most memory come late, so that the peak of the process is mostly that of the latest. Grouped batches
    are for models with tailors: to the others they are batches like any.
    """
    few, many = 4, 5 * SIZES[size].width // 64
    plain = dense(settings_of(size, tailors=few))

    def with_tailors(n: int) -> Config:
        return settings_of(size, tailors=n)

    def parts(config: Config) -> Config:
        return change(config, train={"accumulate": 4})

    def remat(config: Config) -> Config:
        return change(config, model={"remat": True})

    if size == "tiny":  # one of each kind
        return {
            "dense": lambda: plain,
            "dense, accumulate 4": lambda: parts(plain),
            f"KIND, N_T {few}, grouped": lambda: grouped(with_tailors(few)),
            f"KIND, N_T {many}, remat": lambda: remat(with_tailors(many)),
        }
    return {
        "dense": lambda: plain,
        "dense, remat": lambda: remat(plain),
        "dense, accumulate 4": lambda: parts(plain),
        f"KIND, N_T {few}, grouped": lambda: grouped(with_tailors(few)),
        f"KIND, N_T {few}": lambda: with_tailors(few),
        f"KIND, N_T {many}, grouped": lambda: grouped(with_tailors(many)),
        f"KIND, N_T {many}, remat": lambda: remat(with_tailors(many)),
        f"KIND, N_T {many}, accumulate 4": lambda: parts(with_tailors(many)),
        f"KIND, N_T {many}": lambda: with_tailors(many),
        "dense, unrolled": lambda: change(plain, model={"scan_unroll": 0}),
    }


def batch_of(config: Config) -> Batch:
    """Noise for images on the device, and random labels; in runs of one class where the settings ask for them."""
    rng, m, count = np.random.default_rng(0), config.model, config.train.batch
    run = config.data.per_class or 1
    classes = rng.choice(m.num_classes, count // run, replace=run == 1 or count // run > m.num_classes)
    return jax.device_put({
        "image": rng.standard_normal((count, m.size, m.size, m.channels), np.float32),
        "label": np.repeat(classes, run).astype(np.int32),
    })  # fmt: skip


def random_weights(shapes: Any) -> Any:
    """Normal numbers of standard deviation 0.02 in place of initial weights: time does not depend on them, and the SVD
    of a large model takes the host minutes. Zeros would be faster than any real weights. They come again after a
    million: a generator for each leaf would take long to compile."""
    noise = 0.02 * jax.random.normal(jax.random.key(0), (2**20,))
    return jax.tree.map(lambda leaf: jnp.resize(noise, leaf.shape).astype(leaf.dtype), shapes)


def random_state(config: Config) -> TrainState:
    """A training state on the device."""
    task = task_of(config)
    return jax.jit(lambda: states.start(task, random_weights(task.shapes())))()
