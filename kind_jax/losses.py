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
