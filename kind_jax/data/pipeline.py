"""Batches for ever: shuffled anew each epoch, the same on any number of hosts, and resumable to the exact record."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags
from jaxtyping import UInt32

from kind_jax.config.check import check_seed, is_whole, require
from kind_jax.config.roles import differences
from kind_jax.data import augment, grouped
from kind_jax.data.latents import MemoryLatents
from kind_jax.data.sets import Dataset, Draws, MemorySource, Source, gathered
from kind_jax.errors import UserError

# Describes the order of records for the fingerprint: change it whenever the stream changes.
_TRANSFORMS = "uint8 to [-1, 1]; epochs permuted by RandomState([seed, epoch]); batches run across epochs"


@functools.lru_cache(maxsize=2)  # a batch seldom touches more than two epochs
def _epoch_order(records: int, seed: int, epoch: int) -> UInt32[np.ndarray, " N"]:
    """The order of the records in one epoch.

    Grain's own ``shuffle`` costs 40 us a record in Python, more than the rest of a small model's input pipeline.
    RandomState's stream is frozen for good (NEP 19), so a run resumes exactly under another NumPy.
    """
    order = np.random.RandomState([seed, epoch]).permutation(np.arange(records, dtype=np.uint32))
    order.flags.writeable = False
    return order


@dataclasses.dataclass(frozen=True)
class _Uniform:
    """Records at random: one permutation of the data set after another."""

    records: int
    seed: int

    def __call__(self, start: int, stop: int) -> UInt32[np.ndarray, " n"]:
        parts = [
            _epoch_order(self.records, self.seed, epoch)[
                max(0, start - epoch * self.records) : stop - epoch * self.records
            ]
            for epoch in range(start // self.records, (stop - 1) // self.records + 1)
        ]
        return np.concatenate(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Batches:
    """A Grain source whose records are whole batches: number k is this host's part of global batch k."""

    source: Source
    order: Callable[[int, int], np.ndarray]
    batch: int
    seed: int
    flip: bool
    shard: int
    shards: int
    columns: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return sys.maxsize  # endless

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rows = self.batch // self.shards
        start = index * self.batch + self.shard * rows
        indices = self.order(start, start + rows)
        if isinstance(self.source, Draws):
            return self.source.draw(indices, seed=self.seed, first=start, flip=self.flip)
        batch, read = gathered(self.source, indices)
        batch |= {name: values[read] for name, values in self.columns.items()}
        if self.flip:
            mirrored = augment.flips(self.seed, start, rows)
            batch["image"][mirrored] = batch["image"][mirrored, :, ::-1]
        return batch


class _Workers(grain.DatasetIterator):
    """Batches read in worker processes, whose state is the number of the next batch, as without workers.

    The state of Grain's own ``mp_prefetch`` iterator names each worker, so it fits only the same number of them.
    """

    def __init__(self, batches: grain.MapDataset, workers: int) -> None:
        # Grain reads absl flags when it starts workers, which fails in a program that does not use absl's command line.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        super().__init__()
        self._batches, self._count, self._next = batches, workers, 0
        self._reader: grain.DatasetIterator | None = None

    def __next__(self) -> dict[str, np.ndarray]:
        self._assert_not_closed()
        if self._reader is None:
            rest = self._batches[self._next :].to_iter_dataset(_THREADS)
            self._reader = iter(rest.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._count)))
        element = next(self._reader)
        self._next += 1
        return element

    def get_state(self) -> dict[str, int]:
        return {"next_index": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        self._stop()
        self._next = state["next_index"]

    def close(self) -> None:
        self._stop()
        super().close()

    def _stop(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


_DIRECT = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
_THREADS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)  # counted in batches


def batches(
    dataset: Dataset,
    *,
    batch: int,
    seed: int,
    shard: int = 0,
    shards: int = 1,
    workers: int = 0,
    grouping: grouped.Grouping | None = None,
) -> grain.DatasetIterator:
    """Endless batches of a data set, mirrored at random where its ``flip`` is on.

    The global stream of records is one permutation of the data set after another; global batch k is records k * batch
    to (k + 1) * batch of it, so a batch may run across epochs and may be larger than the data set. Shard i of n gets
    rows i * batch / n to (i + 1) * batch / n of every global batch: the stream does not depend on n. Which images are
    mirrored, and the noise of latents, follow from the seed and the position in the global stream.

    ``get_state`` is ``{"next_index": k}`` with k the number of the next global batch, the same on every shard and for
    any number of workers; ``set_state`` continues there exactly. Neither notices another data set, batch or seed:
    compare :func:`fingerprint` first.

    Args:
      dataset: where records come from.
      batch: records in a global batch.
      seed: of the shuffle and of what is drawn for every record, 0 to 2**32 - 1.
      shard: which part of each global batch is read here.
      shards: parts of a global batch, one for each host.
      workers: processes that decode records, 0 for threads; a data set in memory needs neither and uses none.
      grouping: of class-grouped batches; None is for records at random.

    Returns:
      An iterator over ``{"image": float32 [batch / shards, H, W, C], "label": int32 [batch / shards]}``, and the rows
      of the data set's ``columns`` that belong to these images. Where records are read when they are asked for there is
      also ``"bad"``, int64 [batch / shards]: the index of a record that could not be read and was replaced by the next
      one that could, else -1; ``bad.BadRecords`` takes it out and counts.

    Raises:
      UserError: ``batch`` cannot be divided among the shards, ``seed`` is out of range.
    """
    assert 0 <= shard < shards, (shard, shards)
    require(isinstance(dataset, Dataset), "dataset", dataset, "a data set, as kj.open_dataset gives")
    require(is_whole(batch) and 0 < batch < 2**31, "batch", batch, "a whole number of records, 1 or more")
    if batch % shards:
        raise UserError(f"train.batch is {batch}, but it must be a multiple of {shards}, the number of hosts.")
    seed = check_seed(seed)
    assert not dataset.columns or not isinstance(dataset.source, Draws)
    order = _Uniform(len(dataset.source), seed)
    if grouping is not None:
        order = grouped.Grouped(grouping, batch=batch, seed=seed)
    source = _Batches(
        source=dataset.source, order=order, batch=batch, seed=seed, flip=dataset.flip, shard=shard, shards=shards,
        columns=dict(dataset.columns),
    )  # fmt: skip
    stream = grain.MapDataset.source(source)
    if isinstance(dataset.source, MemorySource):
        return iter(stream.to_iter_dataset(_DIRECT))
    if workers and not isinstance(dataset.source, MemoryLatents):
        return _Workers(stream, workers)
    return iter(stream.to_iter_dataset(_THREADS))


def fingerprint(dataset: Dataset, *, batch: int, seed: int, grouping: grouped.Grouping | None = None) -> dict[str, Any]:
    """What determines the stream of :func:`batches`, as JSON values; saved beside the iterator's state."""
    found = {"dataset": dataset.fingerprint, "batch": batch, "seed": seed, "transforms": _TRANSFORMS}
    if dataset.flip:  # absent where it is off, as before there was a choice
        found["flip"] = True
    return found if grouping is None else found | grouping.fingerprint


def describe_difference(saved: dict[str, Any], current: dict[str, Any]) -> str | None:
    """Say how two fingerprints differ, like ``batch was 64, now 32``; None when they are equal."""
    return "; ".join(str(each) for each in sorted(differences(saved, current), key=lambda d: d.name)) or None
