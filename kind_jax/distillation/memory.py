"""The memory banks of CRD: the projected features that each image had when it was last seen, for either network.

Tian et al. 2020, with the constants of the published code. Images have *slots*: their numbers when they are sorted by
class, so that the images of other classes are all slots but one range.

B: samples, K: negatives, N: images (slots), P: projected features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kind_jax.losses import crd, crd_scores, normalised
from kind_jax.nn.init import Initializer

SIDES = ("student", "teacher")


class Seen(NamedTuple):
    """The loss, and the memory after the batch."""

    loss: Float[Array, ""]
    memory: dict[str, Any]


def fresh(records: int, width: int, init: Initializer) -> dict[str, Any]:
    """Banks of random rows, and normalising constants of 0, which the first batch replaces."""
    bound = (width / 3) ** -0.5
    return {side: {"bank": init.uniform(records, width, bound=bound), "constant": init.zeros(1)} for side in SIDES}


def slots(labels: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """The slot of each image."""
    found = np.empty(len(labels), np.int32)
    found[np.argsort(labels, kind="stable")] = np.arange(len(labels), dtype=np.int32)
    return found


def draw_negatives(
    key: PRNGKeyArray, labels: Int[Array, " B"], counts: Sequence[int], negatives: int
) -> Int[Array, "B K"]:
    """Slots of images of other classes, drawn with replacement.

    Args:
      counts: images of each class.
    """
    sizes = np.asarray(counts, np.int32)
    own, first = (jnp.asarray(a)[labels][:, None] for a in (sizes, np.cumsum(sizes) - sizes))
    found = jax.random.randint(key, (len(labels), negatives), 0, int(sizes.sum()) - own)
    return found + jnp.where(found >= first, own, 0)


def look(
    memory: dict[str, Any],
    student: Float[Array, "B P"],
    teacher: Float[Array, "B P"],
    slot: Int[Array, " B"],
    negatives: Int[Array, "B K"],
    *,
    temperature: float,
    momentum: float,
) -> Seen:
    """CRD's loss of unit vectors: each network's own are told apart by the other's memory."""
    after, total = {}, jnp.float32(0)
    mine = dict(zip(SIDES, (student, teacher), strict=True))
    index = jnp.concatenate([slot[:, None], negatives], axis=1)
    for side, other in (SIDES, SIDES[::-1]):
        bank = memory[other]["bank"]
        records = bank.shape[0]
        scores = crd_scores(mine[side], bank[index], temperature)
        average = jax.lax.stop_gradient(jnp.mean(scores)) * records
        constant = jnp.where(memory[side]["constant"][0] > 0, memory[side]["constant"][0], average)
        total += crd(scores[:, 0] / constant, scores[:, 1:] / constant, records)
        own = memory[side]["bank"]
        row = normalised(momentum * own[slot] + (1 - momentum) * jax.lax.stop_gradient(mine[side]))
        after[side] = {"bank": own.at[slot].set(row), "constant": constant[None]}
    return Seen(total, after)
