"""Training of the judge: a classifier of the trainer's, on images in memory. N: images, H W C: image shape.

The judge is a part of another command and keeps no folder. The compiled program does not depend on the number of steps
or the seed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kind_jax import partition
from kind_jax.classifying.config import AugmentConfig, ClassifyRun
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import CNNConfig
from kind_jax.config.training import RuleConfig
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.model import init
from kind_jax.tasks import task_of
from kind_jax.train.short import Short

BATCH = 64
_EPOCHS, _MOST_STEPS = 5.5, 4000
_FEWEST_STEPS, _FEWEST_STEPS_SMALL, _SMALL = 600, 250, 16  # steps, steps where no side has more than 16 pixels
_LEARNING_RATE, _WEIGHT_DECAY, _SMOOTHING = 3e-3, 5e-2, 0.1
_WARM_UP = 0.15  # share of the steps
_SHIFT = 1 / 8  # of the side
_SHOWN = 10  # steps between two calls of progress, which wait for the device


def default_steps(count: int, shape: tuple[int, int, int]) -> int:
    """Steps for ``count`` training images of ``shape`` (H, W, C): five and a half times all of them, but 4000 at most.

    At least 600, or 250 where no side has more than 16 pixels.
    """
    fewest = _FEWEST_STEPS if max(shape[:2]) > _SMALL else _FEWEST_STEPS_SMALL
    return min(max(math.ceil(_EPOCHS * count / BATCH), fewest), _MOST_STEPS)


def settings(shape: tuple[int, int, int], num_classes: int) -> CNNConfig:
    """The network of the judge of images of this shape."""
    return CNNConfig(size=shape[0], channels=shape[2], num_classes=num_classes)


def _run(model: CNNConfig) -> ClassifyRun:
    return ClassifyRun(
        model=model,
        data=DataConfig(source="folder", size=model.size),  # not opened: the images are at hand
        augment=AugmentConfig(crop=max(1, round(model.size * _SHIFT)), border="edge"),
        smoothing=_SMOOTHING,
        optimizer=OptimizerConfig(
            learning_rate=_LEARNING_RATE, b2=0.99,
            rules=(RuleConfig(path="params/.*/kernel", weight_decay=_WEIGHT_DECAY),),
        ),
        train=TrainConfig(batch=BATCH, ema=None),
    )  # fmt: skip


def _rate(step: Any, steps: Array) -> Array:
    # Not optax's, which wants the number of steps when it compiles: here one program serves any number.
    done = step / steps
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * (done - _WARM_UP) / (1 - _WARM_UP)))
    return _LEARNING_RATE * jnp.where(done < _WARM_UP, (step + 1) / (_WARM_UP * steps + 1), cosine)


@functools.lru_cache(maxsize=4)
def _training(model: CNNConfig) -> Short:
    return Short(task_of(_run(model)), _rate)


def fit(
    model: CNNConfig,
    images: Float[np.ndarray, "N H W C"],
    labels: Int[np.ndarray, " N"],
    *,
    seed: int,
    steps: int,
    flip: bool,
    progress: Callable[[int, float], None] = lambda done, accuracy: None,
) -> partition.Collections:
    """The weights after ``steps`` of AdamW with warm-up and a cosine schedule.

    Args:
      flip: whether half of the images are mirrored.
      progress: called now and then with the steps done and the accuracy on the latest batches.
    """
    source = MemorySource(images=np.array(images, np.float32), labels=np.array(labels, np.int32))
    names = tuple(str(number) for number in range(model.num_classes))
    shape = (model.size, model.size, model.channels)
    dataset = Dataset(source=source, class_names=names, image_shape=shape, fingerprint={}, flip=flip)
    weights, latest = initial(model, seed), []
    for done, state, metrics in _training(model).run(weights, dataset, rate=steps, seed=seed, steps=steps):
        weights = state.collections
        latest.append(metrics["accuracy"])
        if done % _SHOWN == 0 or done == steps:
            progress(done, float(np.mean(jax.device_get(latest))))
            latest = []
    return weights


def initial(model: CNNConfig, seed: int) -> partition.Collections:
    """Fresh weights."""
    return jax.tree.map(jnp.asarray, init(model, seed))
