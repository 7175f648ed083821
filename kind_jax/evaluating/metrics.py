"""All metrics from one pass over the images. N: images, H, W, C: their shape, K: classes, D: features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from kind_jax.errors import UserError
from kind_jax.evaluating import intervals
from kind_jax.evaluating.extractor import Extractor, MetricNames
from kind_jax.evaluating.frechet import frechet_distance
from kind_jax.evaluating.intervals import Interval
from kind_jax.evaluating.moments import Gaussian, Moments
from kind_jax.evaluating.neighbours import precision_recall, recall
from kind_jax.evaluating.pixels import dequantise

BATCH = 256
SPLIT = 5000
REFERENCE_IMAGES = 10_000
"""Images of a reference that precision and recall are measured against, as in ADM's reference batches."""
_EFFECTS = 10_000  # images that the interval of a distance is computed from

Batches = Iterable[tuple[UInt8[np.ndarray, "_ H W C"], Int[np.ndarray, " _"] | None]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What an extractor saw in a set of images; what it did not see, or was not asked, is None.

    Attributes:
      kept: pool features, of all images or of a random part.
      kept_spatial: spatial features of a random part.
      score: see :class:`Score`; with its interval.
      right: images in which the extractor sees the class of their label, of those that are labelled.
    """

    count: int
    pool: Gaussian
    spatial: Gaussian | None = None
    kept: Float32[np.ndarray, "N D"] | None = None
    kept_spatial: Float32[np.ndarray, "P S"] | None = None
    score: tuple[float, Interval] | None = None
    right: tuple[int, int] | None = None

    @property
    def accuracy(self) -> float | None:
        """Share of the labelled images that it is right on."""
        return None if self.right is None else self.right[0] / self.right[1]


class Score:
    """The Inception score, exp E[KL(p(y|x) ‖ p(y))], as in ADM: the mean over consecutive splits of 5000 images.

    Salimans et al. 2016. The last split may be smaller. p(y) is the mean over the split.
    """

    def __init__(self, split: int = SPLIT) -> None:
        self._split, self._waiting = split, np.zeros((0, 0), np.float32)
        self._scores = list[tuple[float, float]]()  # of each split, with the variance of its score

    def add(self, probabilities: Float[np.ndarray, "N K"]) -> None:
        """N more rows, in order."""
        self._waiting = np.concatenate([self._waiting.reshape(-1, probabilities.shape[1]), probabilities])
        while len(self._waiting) >= self._split:
            self._scores.append(_split_score(self._waiting[: self._split]))
            self._waiting = self._waiting[self._split :]

    def value(self) -> float:
        """The score of all rows so far."""
        return self.measured()[0]

    def measured(self) -> tuple[float, Interval]:
        """The score of all rows so far, and its interval."""
        rest = [_split_score(self._waiting)] if len(self._waiting) else []
        scores, variances = zip(*self._scores, *rest, strict=True)
        value = float(np.mean(scores))
        return value, intervals.around(value, float(np.sqrt(np.sum(variances))) / len(scores), lowest=1.0)


def _split_score(probabilities: np.ndarray) -> tuple[float, float]:
    """The score of a split, and its variance: log p(y) moves the mean divergence in second order only."""
    p = probabilities.astype(np.float64)
    marginal = np.broadcast_to(p.mean(axis=0)[None, :], p.shape)
    some = p > 0  # 0 log 0 is 0
    divergence = np.zeros_like(p)
    divergence[some] = p[some] * (np.log(p[some]) - np.log(marginal[some]))
    each = divergence.sum(axis=1)
    score = float(np.exp(each.mean()))
    return score, score**2 * float(each.var(ddof=min(1, len(each) - 1))) / len(each)


class _Sample:
    """At most ``limit`` rows of a stream, each as likely as any other, in the order of the stream."""

    def __init__(self, limit: int | None, seed: int = 0) -> None:
        self._limit, self._rng = limit, np.random.default_rng(seed)
        self._rows, self._draws = list[np.ndarray](), np.zeros(0)

    def add(self, rows: np.ndarray) -> None:
        self._rows.append(rows.astype(np.float32))
        self._draws = np.concatenate([self._draws, self._rng.random(len(rows))])
        if self._limit is not None and len(self._draws) > 2 * self._limit:
            self._rows = [self._shrunk()]

    def _shrunk(self) -> np.ndarray:
        rows = np.concatenate(self._rows)
        if self._limit is None or len(rows) <= self._limit:
            return rows
        best = np.sort(np.argpartition(self._draws, self._limit)[: self._limit])
        self._draws = self._draws[best]
        return rows[best]

    def value(self) -> np.ndarray:
        return self._shrunk()


def needed(dims: int) -> int:
    """Images that a Gaussian over ``dims`` features takes; precision and recall take four."""
    return max(dims + 1, 4)


def check_count(count: int, dims: int, what: str) -> None:
    """Refuse a set that is too small for a Fréchet distance.

    Raises:
      UserError: naming the number that is needed.
    """
    if count < needed(dims):
        raise UserError(f"{what} is {count}, but {dims} features need at least {needed(dims)} images.")


def look(
    extractor: Extractor,
    batches: Batches,
    what: str,
    *,
    keep: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Seen:
    """One pass: the extractor is called once for each image.

    Args:
      batches: pixels, and labels where classes matter; of any sizes.
      what: names the images in errors.
      keep: rows of pool features that are kept for precision and recall; None keeps all.
      progress: called with the number of images seen.

    Raises:
      UserError: too few images for a Gaussian, or features that are not finite.
    """
    pool, spatial, score = Moments(), Moments(), Score()
    sample, spatial_sample = _Sample(keep), _Sample(_EFFECTS)
    right, labelled, scored = 0, 0, False
    for pixels, labels in batches:
        for start in range(0, len(pixels), BATCH):
            some = slice(start, start + BATCH)
            features = extractor(dequantise(pixels[some]))
            pool.add(features.pool)
            sample.add(features.pool)
            if features.spatial is not None:
                spatial.add(features.spatial)
                spatial_sample.add(features.spatial)
            if features.probabilities is not None:
                scored = True
                score.add(features.probabilities)
                if extractor.knows_classes and labels is not None:
                    right += int(np.sum(features.probabilities.argmax(axis=1) == labels[some]))
                    labelled += len(features.pool)
            progress(pool.count)
    return Seen(
        count=pool.count,
        pool=pool.fit(what),
        spatial=spatial.fit(what) if spatial.count else None,
        kept=sample.value(),
        kept_spatial=spatial_sample.value() if spatial.count else None,
        score=score.measured() if scored else None,
        right=(right, labelled) if labelled else None,
    )


def compare(names: MetricNames, samples: Seen, reference: Seen) -> dict[str, float]:
    """Every metric that both sides allow, by its name.

    Raises:
      UserError: features of different numbers of dimensions.
    """
    found: dict[str, float] = {}
    if samples.accuracy is not None:
        found["class_accuracy"] = samples.accuracy
    found[names.frechet] = _distance(samples.pool, reference.pool)
    if samples.spatial is not None and reference.spatial is not None:
        found[names.spatial] = _distance(samples.spatial, reference.spatial)
    if samples.score is not None:
        found[names.score] = samples.score[0]
    if samples.kept is not None and reference.kept is not None:
        found["precision"], found["recall"] = precision_recall(reference.kept, samples.kept)
    return found


def spread(names: MetricNames, samples: Seen, reference: Seen, metrics: dict[str, float]) -> dict[str, Interval]:
    """The 95 % interval of each metric that :func:`compare` found (:mod:`kind_jax.evaluating.intervals`)."""
    found: dict[str, Interval] = {}
    if samples.right is not None:
        found["class_accuracy"] = intervals.wilson(*samples.right)
    for name, rows, drawn, real in (
        (names.frechet, samples.kept, samples.pool, reference.pool),
        (names.spatial, samples.kept_spatial, samples.spatial, reference.spatial),
    ):
        if name in metrics and rows is not None and drawn is not None and real is not None:
            effects = intervals.frechet_effects(rows[:_EFFECTS], drawn, real)
            found[name] = intervals.of_mean(metrics[name], effects, samples.count)
    if samples.score is not None:
        found[names.score] = samples.score[1]
    if "recall" in metrics and samples.kept is not None and reference.kept is not None:
        real, count = reference.kept, len(samples.kept)
        found["precision"] = intervals.wilson(round(metrics["precision"] * count), count)
        found["recall"] = intervals.jackknife(metrics["recall"], lambda rows: recall(real, rows), samples.kept)
    return found


def _distance(a: Gaussian, b: Gaussian) -> float:
    if a.mean.shape != b.mean.shape:
        raise UserError(f"the samples have {len(a.mean)} features, but the reference has {len(b.mean)}.")
    return frechet_distance(a.mean, a.cov, b.mean, b.cov)
