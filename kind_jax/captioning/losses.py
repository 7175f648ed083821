"""The two losses of CoCa (Yu et al. 2022, section 3), in float32. B: pairs, T: tokens, V: vocabulary."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kind_jax.errors import UserError


def contrastive(
    image: Float[Array, "B E"],
    text: Float[Array, ...],
    temperature: Float[Array, ""] | float,
    form: Literal["sum", "mean"] = "sum",
) -> Float[Array, ""]:
    """Cross-entropy of finding the text of each image among all of the batch, and the image of each text.

    2 log B where all embeddings are one, 0 where pairs are far from all others.

    Args:
      image, text: embeddings of unit length; row i of both is a pair.
      form: whether the two are added, as in the paper, or averaged.

    Raises:
      UserError: the embeddings have other shapes, or there is no pair.
    """
    if image.shape != text.shape or not len(image):
        raise UserError(f"images and texts have embeddings {image.shape} and {text.shape}, but they must be pairs.")
    # Nothing here mixes what is split over devices by rows with what is split by columns but the one product.
    image, text = image.astype(jnp.float32), text.astype(jnp.float32)
    logits = jnp.matmul(image, text.T, precision=jax.lax.Precision.HIGHEST) / temperature
    pairs = jnp.mean(jnp.sum(image * text, axis=1)) / temperature
    both = jnp.mean(jax.nn.logsumexp(logits, axis=1)) + jnp.mean(jax.nn.logsumexp(logits, axis=0)) - 2 * pairs
    return both * (1.0 if form == "sum" else 0.5)


def captioning(
    logits: Float[Array, "B T V"], targets: Int[Array, ...], form: Literal["tokens", "texts"] = "tokens"
) -> Float[Array, ""]:
    """Cross-entropy of the next word; log V for each where all logits are one.

    Args:
      targets: the word that follows each position; padding (0) counts for nothing.
      form: whether it is averaged over words, or summed over those of a text and averaged over texts.

    Raises:
      UserError: there is another number of targets than of positions.
    """
    if logits.shape[:2] != targets.shape:
        raise UserError(f"logits are for {logits.shape[:2]} words, but targets for {targets.shape}.")
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    lost = jnp.where(words(targets), jax.nn.logsumexp(logits, axis=-1) - chosen, 0.0)
    count = jnp.maximum(jnp.sum(words(targets)), 1) if form == "tokens" else len(targets)
    return jnp.sum(lost) / count


def token_accuracy(logits: Float[Array, "B T V"], targets: Int[Array, "B T"]) -> Float[Array, ""]:
    """Share of the words, padding aside, that get the largest logit."""
    right = (jnp.argmax(logits, axis=-1) == targets) & words(targets)
    return jnp.sum(right) / jnp.maximum(jnp.sum(words(targets)), 1)


def words(tokens: Int[Array, "*B T"]) -> Bool[Array, "*B T"]:
    """Which tokens are no padding."""
    return tokens != 0
