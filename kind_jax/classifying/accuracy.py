"""How well a classifier does on images that it was not trained on. K: classes, N: samples."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from kind_jax import partition
from kind_jax.classifying import network
from kind_jax.config.networks import Network
from kind_jax.data.sets import Dataset
from kind_jax.losses import cross_entropy, soft_targets
from kind_jax.train import sharding

BINS = 15  # of the calibration error, as in Guo et al. 2017
TOP = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What came out.

    Attributes:
      count: images.
      confusion: images of each true class (rows) by the class that was chosen (columns).
      top5: how many had their class among the five most likely ones.
      loss: mean cross-entropy.
      bins: of each interval of confidence: images, sum of confidences, and how many were right.
    """

    count: int
    confusion: Int[np.ndarray, "K K"]
    top5: int
    loss: float
    bins: Float[np.ndarray, "15 3"]

    @property
    def right(self) -> int:
        return int(np.trace(self.confusion))

    @property
    def top1(self) -> float:
        return self.right / self.count

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """The share of each class that was recognised; None for one without images."""
        rows = self.confusion.sum(axis=1)
        return tuple(None if n == 0 else float(self.confusion[i, i] / n) for i, n in enumerate(rows.tolist()))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: |confidence - accuracy|, averaged over images by intervals of confidence."""
        return float(np.abs(self.bins[:, 1] - self.bins[:, 2]).sum() / self.count)

    @property
    def figures(self) -> dict[str, float]:
        """``top1``, ``top5`` (where there are more than five classes), ``loss`` and ``calibration_error``."""
        top5 = {"top5": self.top5 / self.count} if len(self.confusion) > TOP else {}
        return {"top1": self.top1, **top5, "loss": self.loss, "calibration_error": self.calibration_error}


def measure(
    config: Network,
    weights: partition.Collections,
    dataset: Dataset,
    *,
    batch: int,
    mesh: Mesh,
    progress: Callable[[int], None] = lambda done: None,
) -> Accuracy:
    """Classify all images of a data set.

    On several hosts each reads its part of every batch, and all get the result.

    Args:
      weights: placed on the mesh.
      batch: images at a time, over all devices.
      progress: called with the number of images that are done.
    """
    placement = sharding.batch_sharding(mesh)
    shard, shards = sharding.share_of_batch(placement, batch)
    total, rows = len(dataset.source), batch // shards
    sums = jax.device_put(jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), _blank(config)), sharding.replicated(mesh))

    def read(start: int) -> dict[str, np.ndarray]:
        wanted = start + shard * rows + np.arange(rows)
        found = dataset.source.gather(np.minimum(wanted, total - 1))
        return {"image": found["image"], "label": found["label"], "counts": wanted < total}

    for start, parts in ahead(read, range(0, total, batch)):
        sums = _add(config, sums, weights, jax.make_array_from_process_local_data(placement, parts))
        progress(min(start + batch, total))
    sums = jax.device_get(sums)
    return Accuracy(
        count=total, confusion=sums["confusion"], top5=int(sums["top5"]), loss=float(sums["loss"]) / total,
        bins=sums["bins"],
    )  # fmt: skip


def ahead(read: Callable[[int], Any], starts: Iterable[int]) -> Iterator[tuple[int, Any]]:
    """What ``read`` gives for each start, in order; a few are read while the device works."""
    count = min(os.cpu_count() or 1, 8)
    waiting: collections.deque[tuple[int, Future[Any]]] = collections.deque()
    with ThreadPoolExecutor(count) as pool:
        for start in starts:
            waiting.append((start, pool.submit(read, start)))
            if len(waiting) > count:
                first, found = waiting.popleft()
                yield first, found.result()
        for first, found in waiting:
            yield first, found.result()


def _blank(config: Network) -> dict[str, jax.ShapeDtypeStruct]:
    classes = config.num_classes
    return {
        "confusion": jax.ShapeDtypeStruct((classes, classes), jnp.int32),
        "top5": jax.ShapeDtypeStruct((), jnp.int32),
        "loss": jax.ShapeDtypeStruct((), jnp.float32),
        "bins": jax.ShapeDtypeStruct((BINS, 3), jnp.float32),
    }


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _add(config: Network, sums: Any, weights: partition.Collections, batch: Any) -> Any:
    images, labels, counts = batch["image"], batch["label"], batch["counts"]
    found = network.of_labels(config, weights, images, labels).logits
    chosen, counted = jnp.argmax(found, axis=-1), counts.astype(jnp.float32)
    best = jax.lax.top_k(found, min(TOP, config.num_classes))[1]
    confidence = jnp.max(jax.nn.softmax(found, axis=-1), axis=-1)
    rows = jnp.minimum((confidence * BINS).astype(jnp.int32), BINS - 1)
    right = chosen == labels
    losses = cross_entropy(found, soft_targets(labels, config.num_classes))
    return {
        "confusion": sums["confusion"].at[labels, chosen].add(counts.astype(jnp.int32)),
        "top5": sums["top5"] + jnp.sum((best == labels[:, None]).any(axis=-1) & counts),
        "loss": sums["loss"] + jnp.sum(losses * counted),
        "bins": sums["bins"].at[rows].add(jnp.stack([counted, confidence * counted, right * counted], axis=1)),
    }
