"""Losses as pure functions of outputs and targets. B: samples, K: classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kind_jax.errors import UserError


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
    student_logits: Float[Array, "B K"], teacher_logits: Float[Array, "B K"], temperature: float = 4.0
) -> Float[Array, ""]:
    """T² KL(softmax(teacher / T) || softmax(student / T)), averaged over samples (Hinton et al. 2015), in float32.

    It is 0 where the logits differ by one number a sample, and for great temperatures half the squared difference of
    centred logits, divided by the number of classes.

    Raises:
      UserError: the temperature is not positive and finite.
    """
    _check_positive("temperature", temperature)
    ours, theirs = (
        jax.nn.log_softmax(logits.astype(jnp.float32) / temperature, axis=-1)
        for logits in (student_logits, teacher_logits)
    )
    return temperature**2 * jnp.mean(jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1))


def normalised(x: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Rows of unit length, in float32; a row of zeros stays one, and has a gradient of zero."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    some = square > 1e-24
    return x * jnp.where(some, jax.lax.rsqrt(jnp.where(some, square, 1.0)), 0.0)


def align(u: Float[Array, "B D"], v: Float[Array, "B D"], alpha: float = 2.0) -> Float[Array, ""]:
    """Mean of ||u_i - v_i||^alpha (Wang & Isola 2020); for unit vectors and alpha = 2 that is 2 - 2 cos.

    Its gradient is finite, and zero, where the two coincide.

    Raises:
      UserError: alpha is not positive and finite.
    """
    _check_positive("alpha", alpha)
    difference = u.astype(jnp.float32) - v.astype(jnp.float32)
    square = jnp.sum(difference * difference, axis=-1)
    if alpha == 2.0:
        return jnp.mean(square)
    apart = square > 0  # a power below 1 has no derivative at 0, not even one that a mask behind it could hide
    return jnp.mean(jnp.where(apart, jnp.where(apart, square, 1.0) ** (alpha / 2), 0.0))


def uniform(x: Float[Array, "B D"], t: float = 2.0) -> Float[Array, ""]:
    """log of the mean over pairs i < j of exp(-t ||x_i - x_j||²) (Wang & Isola 2020), of unit vectors.

    0 where all coincide, the worst; at best -2 t B / (B - 1), for a regular simplex. Differences are taken, as inner
    products would lose the digits of close pairs. On several devices it is that of the whole batch.

    Raises:
      UserError: there is one vector alone, which has no pair; or t is not positive and finite.
    """
    _check_positive("t", t)
    count = x.shape[0]
    if count < 2:
        raise UserError(f"uniformity is about pairs, but the batch has {count}: it must have 2 samples or more.")
    x = x.astype(jnp.float32)
    square = jnp.sum((x[:, None, :] - x[None, :, :]) ** 2, axis=-1)
    pairs = jnp.arange(count)[:, None] < jnp.arange(count)[None, :]
    return jax.nn.logsumexp(jnp.where(pairs, -t * square, -jnp.inf)) - jnp.log(count * (count - 1) / 2)


def info_nce(u: Float[Array, "B D"], v: Float[Array, "B D"], temperature: float = 0.25) -> Float[Array, ""]:
    """-log softmax(u_i · v_j / T) at j = i, averaged over i (van den Oord et al. 2018), of unit vectors.

    Raises:
      UserError: the temperature is not positive and finite.
    """
    _check_positive("temperature", temperature)
    similarity = jnp.matmul(
        u.astype(jnp.float32), v.astype(jnp.float32).T, precision=jax.lax.Precision.HIGHEST
    ) / temperature  # fmt: skip
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(similarity, axis=-1)))


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UserError(f"{name} is {value!r}, but it must be positive and finite.")
