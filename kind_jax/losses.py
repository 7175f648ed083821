"""Losses as pure functions of outputs and targets. B: samples, K: classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kind_jax.errors import UserError

_SHARPEST = 1e5


def soft_targets(labels: Int[Array, " B"], classes: int, smoothing: float = 0.0) -> Float[Array, "B K"]:
    """One-hot targets that keep 1 - ``smoothing`` of their weight and spread the rest over all classes alike.

    Szegedy et al. 2016, section 7: the true class gets 1 - s + s / K.
    """
    hot = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    return hot * (1 - smoothing) + smoothing / classes


def cross_entropy(logits: Float[Array, "B K"], targets: Float[Array, "B K"]) -> Float[Array, " B"]:
    """-Σ target log softmax(logits), in float32. A class whose logit is -inf must have a target of 0."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return -jnp.sum(jnp.where(targets > 0, targets * log_p, 0.0), axis=-1)


def check_hard(labels: Array, what: str) -> None:
    """Refuse labels that are soft already.

    Raises:
      UserError: naming ``what`` needs class numbers, and the shape that was found.
    """
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserError(
            f"{what} needs labels that are class numbers [B], but they are {labels.dtype}{list(labels.shape)}: "
            "targets that are soft already are not mixed again."
        )


def kd(
    student_logits: Float[Array, "B K"],
    teacher_logits: Float[Array, ...],
    temperature: float = 4.0,
    mask: Array | None = None,
) -> Float[Array, ""]:
    """T² KL(softmax(teacher / T) || softmax(student / T)), averaged over samples (Hinton et al. 2015), in float32.

    It is 0 where the logits differ by one number a sample, and for great temperatures half the squared difference of
    centred logits, divided by the number of classes. Where a logit of both is -inf, the class counts for nothing;
    where the student's alone is, the loss is infinite. With a mask [B], the mean is over the samples for which it is
    not 0, and 0 where it is for all.

    Raises:
      UserError: the temperature is not positive and finite.
    """
    _check_positive("temperature", temperature)
    _check_alike("the student's and the teacher's logits", student_logits, teacher_logits)
    ours, theirs = (logits.astype(jnp.float32) for logits in (student_logits, teacher_logits))
    log_p = jax.nn.log_softmax(theirs / temperature, axis=-1)
    possible = log_p > -jnp.inf
    excluded = possible & (ours == -jnp.inf)
    p = jnp.exp(log_p)
    # KL = log Σ p exp(-x), where x are the differences of logits around their mean under p. Where they are small, what
    # is left of 1 is summed by itself: T² would magnify the rounding of anything else.
    x = jnp.where(possible, theirs, 0.0) / temperature - jnp.where(possible & ~excluded, ours, 0.0) / temperature
    mean = jnp.sum(p * x, axis=-1, keepdims=True)
    x = jnp.where(possible, x - mean, 0.0)
    # What the student gives to classes that the teacher rules out is lost.
    lost = mean + ours / temperature - jax.nn.logsumexp(theirs / temperature, axis=-1, keepdims=True)
    lost = jnp.where(possible, -jnp.inf, lost)
    small = (jnp.max(jnp.abs(x), axis=-1, keepdims=True) < 0.1) & jnp.all(lost == -jnp.inf, axis=-1, keepdims=True)
    y = jnp.where(small, x, 0.0)
    rest = y * y * (1 / 2 - y * (1 / 6 - y * (1 / 24 - y * (1 / 120 - y / 720))))  # exp(-y) - 1 + y
    near = jnp.log1p(jnp.sum(p * rest, axis=-1))
    far = jax.nn.logsumexp(jnp.where(possible, log_p - jnp.where(small, 0.0, x), lost), axis=-1)
    found = jnp.where(jnp.any(excluded, axis=-1), jnp.inf, jnp.where(small[:, 0], near, far))
    if mask is None:
        return temperature**2 * jnp.mean(found)
    kept = mask != 0
    return temperature**2 * jnp.sum(jnp.where(kept, found, 0.0)) / jnp.maximum(jnp.sum(kept), 1)


def normalised(x: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Rows of unit length, in float32; a row of zeros stays one, and has a gradient of zero."""
    x = x.astype(jnp.float32)
    # The squares of very long or short rows are no float32.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    some = largest > 0
    x = x / jnp.where(some, largest, 1.0)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jnp.where(some, jax.lax.rsqrt(jnp.where(some, square, 1.0)), 0.0)


def align(u: Float[Array, "B D"], v: Float[Array, ...], alpha: float = 2.0) -> Float[Array, ""]:
    """Mean of ||u_i - v_i||^alpha (Wang & Isola 2020); for unit vectors and alpha = 2 that is 2 - 2 cos.

    Its gradient is finite, and zero, where the two coincide.

    Raises:
      UserError: alpha is not positive and finite.
    """
    _check_positive("alpha", alpha)
    _check_alike("u and v", u, v)
    difference = u.astype(jnp.float32) - v.astype(jnp.float32)
    square = jnp.sum(difference * difference, axis=-1)
    if alpha == 2.0:
        return jnp.mean(square)
    apart = square > 0  # a power below 1 has no derivative at 0, not even one that a mask behind it could hide
    return jnp.mean(jnp.where(apart, jnp.where(apart, square, 1.0) ** (alpha / 2), 0.0))


def uniform(x: Float[Array, "B D"], t: float = 2.0) -> Float[Array, ""]:
    """log of the mean over pairs i < j of exp(-t ||x_i - x_j||²) (Wang & Isola 2020), of unit vectors.

    0 where all coincide, the worst; at best -2 t B / (B - 1), for a regular simplex. On several devices it is that of
    the whole batch.

    Raises:
      UserError: there is one vector alone, which has no pair; or t is not positive and finite.
    """
    _check_positive("t", t)
    count = x.shape[0]
    if count < 2:
        raise UserError(f"uniformity is about pairs, but the batch has {count}: it must have 2 samples or more.")
    x = x.astype(jnp.float32)
    # Distances from inner products take memory and time of B², not B² D. Around their mean vectors that lie close
    # together are short, and so keep their digits.
    x = x - jnp.mean(x, axis=0, keepdims=True)
    length = jnp.sum(x * x, axis=-1)
    product = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
    square = jnp.maximum(length[:, None] + length[None, :] - 2 * product, 0.0)
    pairs = jnp.arange(count)[:, None] < jnp.arange(count)[None, :]
    return jax.nn.logsumexp(jnp.where(pairs, -t * square, -jnp.inf)) - jnp.log(count * (count - 1) / 2)


def uniform_on_sphere(dimensions: int, t: float = 2.0) -> float:
    """What :func:`uniform` tends to for many vectors that are spread evenly over the unit sphere of so many dimensions:
    log 0F1(; d / 2; t²) - 2 t.

    Raises:
      UserError: there is no dimension, or t is not positive or very large.
    """
    if dimensions < 1 or not 0 < t <= _SHARPEST:
        raise UserError(
            f"dimensions and t are {dimensions} and {t!r}, but they must be 1 or more, and positive and at most "
            f"{_SHARPEST:g}."
        )
    half = dimensions / 2
    terms = [  # their logarithms; beyond k = t they shrink
        2 * k * math.log(t) + math.lgamma(half) - math.lgamma(half + k) - math.lgamma(k + 1)
        for k in range(int(3 * t) + 100)
    ]
    largest = max(terms)
    return largest + math.log(math.fsum(math.exp(term - largest) for term in terms)) - 2 * t


def info_nce(u: Float[Array, "B D"], v: Float[Array, ...], temperature: float = 0.25) -> Float[Array, ""]:
    """-log softmax(u_i · v_j / T) at j = i, averaged over i (van den Oord et al. 2018), of unit vectors.

    Raises:
      UserError: the temperature is not positive and finite.
    """
    _check_positive("temperature", temperature)
    _check_alike("u and v", u, v)
    similarity = jnp.matmul(
        u.astype(jnp.float32), v.astype(jnp.float32).T, precision=jax.lax.Precision.HIGHEST
    ) / temperature  # fmt: skip
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(similarity, axis=-1)))


def crd_scores(
    anchors: Float[Array, "B D"], memory: Float[Array, "B N D"], temperature: float = 0.07
) -> Float[Array, "B N"]:
    """exp(u_i · m_ij / T) of anchors and rows of a memory bank, for :func:`crd` (Tian et al. 2020, equation 19), before
    they are divided by their normalising constant.

    Raises:
      UserError: the temperature is not positive and finite.
    """
    _check_positive("temperature", temperature)
    similarity = jnp.einsum(
        "bd,bnd->bn", anchors.astype(jnp.float32), memory.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
    )
    return jnp.exp(similarity / temperature)


def crd(positive: Float[Array, " B"], negative: Float[Array, "A N"], records: int) -> Float[Array, ""]:
    """Contrastive representation distillation with one side's anchors (Tian et al. 2020, equation 18).

    Whether a pair is of one image or of two is told by h = P / (P + N / records), and this is -log h of the positive
    pair and -log (1 - h) of the N negative ones, summed, averaged over samples.

    log(1 + N) + N log(1 + 1 / N) where all P are 1 / records, that is, where nothing can be told.

    Args:
      positive, negative: P of each pair: :func:`crd_scores` divided by the normalising constant.
      records: images that negatives are drawn from.

    Raises:
      UserError: there is no negative pair or no record.
    """
    if positive.shape[0] != negative.shape[0]:
        raise UserError(
            f"CRD needs negatives for each positive pair, but has {positive.shape[0]} and {negative.shape[0]} rows."
        )
    count = negative.shape[1]
    if count < 1 or records < 1:
        raise UserError(f"CRD needs negatives of some records, but there are {count} negatives of {records} records.")
    noise, least = count / records, 1e-7
    positive, negative = positive.astype(jnp.float32), negative.astype(jnp.float32)
    together = -jnp.log(positive / (positive + noise + least))
    apart = -jnp.sum(jnp.log(noise / (negative + noise + least)), axis=-1)
    return jnp.mean(together + apart)


def feature(student: Float[Array, "B *T D"], teacher: Float[Array, ...], mask: Array | None = None) -> Float[Array, ""]:
    """Mean squared difference of features of one shape, in float32.

    With a mask [B, *T], the mean is over the vectors for which it is not 0. What is masked has no influence, NaN and
    infinities included; where all is, the loss is 0.

    Raises:
      UserError: the shapes differ, or the mask does not fit them.
    """
    if student.shape != teacher.shape:
        raise UserError(
            f"student and teacher have features {student.shape} and {teacher.shape}, which must be alike: project one."
        )
    if mask is None:
        return jnp.mean((student.astype(jnp.float32) - teacher.astype(jnp.float32)) ** 2)
    if mask.shape != student.shape[:-1]:
        raise UserError(f"the mask has the shape {mask.shape}, but it must have {student.shape[:-1]}.")
    kept = (mask != 0)[..., None]
    difference = jnp.where(kept, student, 0).astype(jnp.float32) - jnp.where(kept, teacher, 0).astype(jnp.float32)
    return jnp.sum(difference**2) / (jnp.maximum(jnp.sum(kept), 1) * student.shape[-1])


def layerwise(
    students: Sequence[Float[Array, ...]], teachers: Sequence[Float[Array, ...]], mask: Array | None = None
) -> Float[Array, ""]:
    """The mean of :func:`feature` over layers: student layer l of n is compared with teacher layer ceil(l m / n) of m,
    so that the last meets the last (Liang et al. 2023, TED, where n divides m).

    Raises:
      UserError: one of them has no layers, or as :func:`feature`.
    """
    if not students or not teachers:
        raise UserError(f"layers are compared, but the student has {len(students)} and the teacher {len(teachers)}.")
    pairs = [(layer, teachers[-(-(i + 1) * len(teachers) // len(students)) - 1]) for i, layer in enumerate(students)]
    return jnp.mean(jnp.stack([feature(ours, theirs, mask) for ours, theirs in pairs]))


def _check_alike(what: str, a: Array, b: Array) -> None:
    if a.shape != b.shape or not len(a):
        raise UserError(f"{what} have the shapes {a.shape} and {b.shape}, but they must be alike and not empty.")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UserError(f"{name} is {value!r}, but it must be positive and finite.")
