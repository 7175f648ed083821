"""Class-grouped batches: cohorts of m records of one class, in an order that is a function of position alone.

A batch of class-grouped training has G classes with m records each, instead of records at random, so that a step looks
each class's tailors up once and not once a record. Where the tailor bank is dealt to devices, every *stream* of cohorts
has the classes of one of its shards.

Fairness. A class of n records gives floor(((e + 1) n + p) / m) - floor((e n + p) / m) cohorts in epoch e, with a phase
0 <= p < m of its own, and its cohorts take its records one permutation after another. So after e epochs of a stream
each record has been met e times, give or take ceil(m / n) + 1, whatever the sizes of the classes. An epoch's cohorts of
a class are spread evenly over the epoch, at random within their shares of it.

Dimensions: N records, C classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int64

from kind_jax.data.parts import labels_of
from kind_jax.data.sets import Dataset
from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable

_ORDER = "cohorts of one class, spread over epochs; classes of a batch distinct while sizes allow"
_PHASES, _SPREAD, _RECORDS = range(3)  # what is drawn from a seed
_CYCLE = 2048  # cohorts among which a batch's classes are made distinct


class Cohort(NamedTuple):
    """Number ``number`` of a class, whose records are at m number, m number + 1, ... of the class's own order."""

    label: int
    number: int


class Stream:
    """An endless sequence of cohorts of some classes, of which every batch takes ``width``.

    Args:
      records: of each class, their indices in the data set.
      m: records of a cohort.
      width: cohorts that a batch takes.
      seed: of all orders.
      name: what tells this stream's order from others' of the same seed.
    """

    def __init__(
        self, records: dict[int, Int[np.ndarray, " n"]], *, m: int, width: int, seed: int, name: int = 0
    ) -> None:
        self._records, self._m, self._width, self._seed, self._name = records, m, width, seed, name
        self._labels = np.array(sorted(records), np.int64)
        self._sizes = np.array([len(records[label]) for label in self._labels], np.int64)
        self._phases = np.array([self._draw(_PHASES, int(label)).randint(m) for label in self._labels], np.int64)
        self._cycle = max(_CYCLE // width, 1)  # batches
        self._epoch = functools.lru_cache(maxsize=4)(self._epoch_cohorts)
        self._ordered = functools.lru_cache(maxsize=2)(self._cycle_cohorts)
        self._order = functools.lru_cache(maxsize=2 * len(records) + 8)(self._order_of)

    def batch(self, index: int) -> Int64[np.ndarray, "width m"]:
        """Records of the cohorts that batch ``index`` takes."""
        cycle, place = divmod(index, self._cycle)
        cohorts = self._ordered(cycle)[place * self._width : (place + 1) * self._width]
        return np.stack([self.records(cohort) for cohort in cohorts])

    def records(self, cohort: Cohort) -> Int64[np.ndarray, " m"]:
        """The records of a cohort; a class of fewer than m gives them several times."""
        count, first = len(self._records[cohort.label]), cohort.number * self._m
        positions = np.arange(first, first + self._m)
        parts = [
            self._order(cohort.label, int(epoch))[positions[positions // count == epoch] % count]
            for epoch in range(first // count, (first + self._m - 1) // count + 1)
        ]
        return np.concatenate(parts)

    def _draw(self, what: int, *which: int) -> np.random.RandomState:
        """RandomState's stream is frozen for good (NEP 19), so a cohort resumes exactly under another NumPy."""
        return np.random.RandomState([self._seed, what, self._name, *which])

    def _order_of(self, label: int, epoch: int) -> Int64[np.ndarray, " n"]:
        return self._records[label][self._draw(_RECORDS, label, epoch).permutation(len(self._records[label]))]

    def _dealt(self, epoch: int) -> Int64[np.ndarray, " C"]:
        """Cohorts of each class before ``epoch``."""
        return (epoch * self._sizes + self._phases) // self._m

    def _epoch_cohorts(self, epoch: int) -> list[Cohort]:
        """The cohorts of an epoch, every class's spread evenly over it."""
        first, last = self._dealt(epoch), self._dealt(epoch + 1)
        counts = last - first
        which = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        when = (number + self._draw(_SPREAD, epoch).random_sample(len(which))) / counts[which]
        return [
            Cohort(int(self._labels[c]), int(first[c] + n))
            for c, n in zip(*(values[np.argsort(when, kind="stable")] for values in (which, number)), strict=True)
        ]

    def _cycle_cohorts(self, cycle: int) -> Sequence[Cohort]:
        """The cohorts of a cycle of batches, in the order in which batches take them."""
        begin = cycle * self._cycle * self._width
        found: list[Cohort] = []
        epoch = self._epoch_at(begin)
        start = int(self._dealt(epoch).sum() - self._dealt(0).sum())
        while start < begin + self._cycle * self._width:
            cohorts = self._epoch(epoch)
            found += cohorts[max(begin - start, 0) : begin + self._cycle * self._width - start]
            start, epoch = start + len(cohorts), epoch + 1
        return distinct(found, self._width)

    def _epoch_at(self, position: int) -> int:
        """The epoch that the cohort at ``position`` belongs to."""
        zero = self._dealt(0).sum()
        low, high = 0, 1
        while self._dealt(high).sum() - zero <= position:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._dealt(middle).sum() - zero <= position else (low, middle)
        return low


def distinct(cohorts: Sequence[Cohort], width: int) -> list[Cohort]:
    """The same cohorts, ordered so that each ``width`` of them are of different classes as far as that is possible.

    A class that has as many cohorts left as there are batches left must be in each of them; one that has more is in
    each as often as in any other. All other places go to the next in line whose class is not in the batch yet.
    """
    waiting: dict[int, list[Cohort]] = {}  # of each class, its cohorts in line, the next one last
    for cohort in reversed(cohorts):
        waiting.setdefault(cohort.label, []).append(cohort)
    line = dict.fromkeys(cohorts)  # a dictionary keeps its order and forgets a key at once
    found: list[Cohort] = []
    for left in range(len(cohorts) // width, 0, -1):
        batch: list[Cohort] = []
        for own in waiting.values():
            for _ in range(len(own) // left):
                batch.append(own[-1])
                del line[own.pop()]
        present = {cohort.label for cohort in batch}
        for repeated in (False, True):
            taken: list[Cohort] = []
            for cohort in line:
                if len(batch) + len(taken) == width:
                    break
                if repeated or cohort.label not in present:
                    present.add(cohort.label)
                    taken.append(cohort)
            for cohort in taken:
                waiting[cohort.label].remove(cohort)
                del line[cohort]
            batch += taken
        found += batch
    return found


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Grouping:
    """How a data set is dealt in class-grouped batches.

    Attributes:
      per_class: records of one class that a batch has together, m.
      labels: of every record; -1 of one that cannot be read, which is left out.
      stream: of each class, the stream of cohorts that it belongs to; None where all are of one.
      replicas: parts of a batch, each of which has a piece of every stream.
    """

    per_class: int
    labels: Int[np.ndarray, " N"]
    stream: tuple[int, ...] | None = None
    replicas: int = 1

    @property
    def streams(self) -> int:
        return 1 if self.stream is None else max(self.stream) + 1

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What determines the order, as JSON values. ``dealt`` is the mesh's part of it."""
        dealt = {"shards": self.streams, "replicas": self.replicas}
        return {"order": _ORDER, "per_class": self.per_class, "dealt": dealt}


def of_dataset(dataset: Dataset, m: int, stream: tuple[int, ...] | None = None, replicas: int = 1) -> Grouping:
    """The grouping of a data set; one that does not know its labels is read for them."""
    source = dataset.source
    known = getattr(source, "labels", None)
    labels = np.asarray(labels_of(source) if known is None else known)
    return Grouping(per_class=m, labels=labels, stream=stream, replicas=replicas)


class Grouped:
    """The order of class-grouped batches in a global stream, in which batch k is at k * batch to (k + 1) * batch.

    Several streams stand side by side: a batch is cut into ``replicas`` equal parts of ``streams`` equal pieces, and
    piece j of every part has records of stream j alone. That is where a mesh has the devices of shard j of the tailor
    bank (:mod:`kind_jax.train.layout`).

    Args:
      batch: records of a global batch. Its cohorts are a multiple of the streams, and one of the length of a cohort
        and that of a piece divides the other.
      seed: of all orders.
    """

    def __init__(self, grouping: Grouping, *, batch: int, seed: int) -> None:
        self._batch, self._replicas = batch, grouping.replicas
        m, streams, labels = grouping.per_class, grouping.streams, grouping.labels
        classes = int(labels.max()) + 1
        of = np.zeros(classes, np.int64) if grouping.stream is None else np.asarray(grouping.stream)
        ordered = np.argsort(labels, kind="stable")
        first = np.searchsorted(labels[ordered], np.arange(classes + 1))
        records = {c: ordered[first[c] : first[c + 1]] for c in range(classes) if first[c + 1] > first[c]}
        width = batch // (m * streams)
        self._streams = [
            Stream({c: found for c, found in records.items() if of[c] == j}, m=m, width=width, seed=seed, name=j)
            for j in range(streams)
        ]
        self._global = functools.lru_cache(maxsize=4)(self._batch_of)

    def __call__(self, start: int, stop: int) -> Int64[np.ndarray, " n"]:
        """Records at positions ``start`` to ``stop`` of the global stream."""
        first, last = start // self._batch, (stop - 1) // self._batch
        found = np.concatenate([self._global(k) for k in range(first, last + 1)])
        return found[start - first * self._batch : stop - first * self._batch]

    def _batch_of(self, index: int) -> Int64[np.ndarray, " batch"]:
        pieces = [stream.batch(index).reshape(self._replicas, -1) for stream in self._streams]
        return np.concatenate(pieces, axis=1).reshape(-1)


def check(grouping: Grouping, names: Sequence[str], batch: int, *, all_classes: bool) -> list[str]:
    """Refuse a data set whose classes cannot be dealt.

    Args:
      names: of all classes.
      all_classes: whether every class must have records.

    Returns:
      Sentences about what is unusual.

    Raises:
      UserError: there are fewer classes than cohorts in a batch, or a class has too few records.
    """
    m, stream = grouping.per_class, grouping.stream
    counts = np.bincount(grouping.labels[grouping.labels >= 0], minlength=len(names)).tolist()
    cohorts, there = batch // m, [label for label, count in enumerate(counts) if count]
    if cohorts > len(there):
        fitting = next(n for n in range(-(-batch // max(len(there), 1)), batch + 1) if batch % n == 0)
        found = "1 class" if len(there) == 1 else f"{len(there)} classes"
        raise UserError(
            f"data.per_class is {m}, which puts {cohorts} classes into a batch of {batch}, but the data set has images "
            f"of {found}: data.per_class must be {fitting} or more."
        )
    fewest = min(range(len(names)) if all_classes else there, key=lambda label: counts[label])
    if counts[fewest] < 2:
        raise UserError(
            f"data.per_class is {m}, but class {printable(repr(names[fewest]), 100)} has {counts[fewest] or 'no'} "
            "training image, and class-grouped batches need 2 or more of each class."
        )
    lines = []
    if short := [label for label in there if counts[label] < m]:
        first = printable(repr(names[short[0]]), 100)
        lines.append(
            f"data.per_class is {m}, and {len(short)} classes have fewer images, like {first} with "
            f"{counts[short[0]]}: a cohort of theirs has some images twice"
        )
    if stream is not None:
        lines += _check_streams(counts, stream, cohorts)
    return lines


def _check_streams(counts: Sequence[int], stream: Sequence[int], cohorts: int) -> list[str]:
    streams = max(stream) + 1
    totals = np.bincount(np.asarray(stream), np.asarray(counts), minlength=streams)
    classes = np.bincount(np.asarray(stream), np.asarray(counts) > 0, minlength=streams)
    if not classes.all():
        raise UserError(
            f"mesh.fsdp is {streams}, but shard {int(np.argmin(classes))} of the tailors would have no class with "
            "images: use fewer shards."
        )
    if (least := int(classes.min())) < cohorts // streams:
        raise UserError(
            f"a batch has {cohorts // streams} classes of each shard of the tailors (mesh.fsdp {streams}), but "
            f"shard {int(np.argmin(classes))} has {least} classes: raise data.per_class."
        )
    often = float(totals.mean() / totals.min())
    if often < 1.01:
        return []
    return [
        f"every shard of the tailors gets as many samples, but their classes have {int(totals.min())} to "
        f"{int(totals.max())} images: those of the smallest are met {often:.2f} times as often as the mean"
    ]
