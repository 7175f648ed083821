"""The best captions of each image that a beam search finds. N images, K beams, V vocabulary."""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from kind_jax import partition
from kind_jax.captioning import network
from kind_jax.captioning.decode.request import Asked, asked, possible_words
from kind_jax.config.check import is_whole, require
from kind_jax.config.coca import CoCaConfig
from kind_jax.nn.attention import Kept

_MOST = 1024


class Beams(NamedTuple):
    """Captions of each image, the best first; all padding behind those that there are, at log-probability -inf.

    Attributes:
      tokens, log_probabilities: as of :class:`kind_jax.captioning.decode.Captions`.
      scores: what captions are ordered by.
    """

    tokens: Int32[Array, "N best length"]
    log_probabilities: Float[Array, "N best"]
    scores: Float[Array, "N best"]


def beam(
    config: CoCaConfig,
    collections: partition.Collections,
    images: Any,
    *,
    beams: int = 4,
    best: int = 1,
    length_penalty: float = 0.0,
    bos: int,
    eos: int,
    pad: int = 0,
    length: int | None = None,
    min_length: int = 0,
    prompt: Any = None,
) -> Beams:
    """Beam search: the ``beams`` most probable beginnings are carried on, and the best captions returned.

    A caption of n tokens behind the prompt, ``eos`` among them, has the score log p / ((5 + n) / 6)^``length_penalty``
    (Wu et al. 2016, eq. 14, without coverage): 0 compares probabilities, which favours short captions. One that the
    length cuts off counts as it is. The search ends when no beginning can become better than the ``best`` found.

    Args:
      beams: beginnings that are carried on; 1 without a length_penalty is greedy.
      best: captions to be returned, at most ``beams``.
      images, bos, eos, pad, length, min_length, prompt: see :func:`kind_jax.captioning.decode.greedy`.

    Raises:
      UserError: as :func:`kind_jax.captioning.decode.greedy`, or beams below 1, a best outside of them, or a
        length_penalty that is negative.
    """
    require(is_whole(beams) and 1 <= beams <= _MOST, "beams", beams, f"a whole number from 1 to {_MOST}")
    require(is_whole(best) and 1 <= best <= beams, "best", best, f"a whole number from 1 to {beams}, the beams")
    possible = isinstance(length_penalty, numbers.Real) and 0 <= length_penalty < math.inf
    require(possible, "length_penalty", length_penalty, "a number, 0 or more")
    wanted = asked(
        config, collections, images, bos=bos, eos=eos, pad=pad, length=length, min_length=min_length, prompt=prompt
    )
    return _searched(config, collections, wanted, np.float32(length_penalty), int(beams), int(best))


class _Some(NamedTuple):
    """Captions or their beginnings, the best first."""

    tokens: Int[Array, "N K length"]
    log_probabilities: Float[Array, "N K"]
    scores: Float[Array, "N K"]


class _State(NamedTuple):
    position: Int[Array, ""]
    open: _Some
    ended: _Some
    writing: Any


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _searched(config: CoCaConfig, collections: Any, wanted: Asked, penalty: Any, beams: int, best: int) -> Beams:
    net, rules = network.opened(config, collections), wanted.rules
    (N, length), K, V = rules.begun.shape, beams, config.vocabulary
    first = jnp.where(jnp.arange(K) == 0, 0.0, -jnp.inf)[None].repeat(N, 0)  # all beams begin alike: one is enough
    nothing = jnp.full((N, K), -jnp.inf)
    begun = rules.begun[:, None].repeat(K, 1)

    def score(log_probabilities: Float[Array, "*shape"], count: Int[Array, ""]) -> Float[Array, "*shape"]:
        return log_probabilities / ((5 + jnp.maximum(count - rules.given, 1)) / 6) ** penalty

    def more(state: _State) -> Any:
        hopes = score(state.open.log_probabilities[:, 0], jnp.int32(length))  # it can get no more, divided by no less
        return (state.position < length - 1) & jnp.any(hopes > state.ended.scores[:, best - 1])

    def step(state: _State) -> _State:
        position, old, ended, writing = state
        logits, writing = net.step(old.tokens[:, :, position].reshape(N * K), position, writing)
        position = position + 1
        words = possible_words(logits, position, rules.begun[:, position].repeat(K), rules).reshape(N, K, V)
        total = (old.log_probabilities[:, :, None] + words).reshape(N, K * V)
        # At most one continuation of each beam ends, so K of these do not. One ends only where it is among the K best:
        # else every caption would end somewhere, and a single beam would not be greedy.
        total, at = jax.lax.top_k(total, min(2 * K, K * V))
        parent, word = at // V, (at % V).astype(jnp.int32)
        tokens = jnp.take_along_axis(old.tokens, parent[:, :, None], axis=1).at[:, :, position].set(word)
        ends = word == rules.eos
        leading = (jnp.arange(total.shape[1]) < K)[None]
        new = _Some(tokens, total, jnp.where(ends & leading, score(total, position + 1), -jnp.inf))
        going = _Some(tokens, total, jnp.where(ends, -jnp.inf, total))
        kept, chosen = _best(going, K)
        kept = kept._replace(log_probabilities=kept.scores)
        sources = jnp.take_along_axis(parent, chosen, axis=1)
        writing = writing._replace(text=_moved(writing.text, sources), multimodal=_moved(writing.multimodal, sources))
        return _State(position, kept, _best(_joined(ended, new), K)[0], writing)

    start = _State(
        jnp.int32(0), _Some(begun, first, first), _Some(begun, nothing, nothing), net.begin(wanted.tokens, length, K)
    )
    found = jax.lax.while_loop(more, step, start)
    cut = jnp.where(found.position == length - 1, score(found.open.log_probabilities, jnp.int32(length)), -jnp.inf)
    tokens, log_probabilities, scores = _best(_joined(found.ended, found.open._replace(scores=cut)), best)[0]
    none = scores == -jnp.inf
    return Beams(
        jnp.where(none[:, :, None], rules.pad, tokens), jnp.where(none, -jnp.inf, log_probabilities), scores
    )  # fmt: skip


def _joined(a: _Some, b: _Some) -> _Some:
    return _Some(*(jnp.concatenate([x, y], axis=1) for x, y in zip(a, b, strict=True)))


def _best(some: _Some, count: int) -> tuple[_Some, Int[Array, "N count"]]:
    """Those with the highest scores, and where they were."""
    scores, at = jax.lax.top_k(some.scores, count)
    tokens = jnp.take_along_axis(some.tokens, at[:, :, None], axis=1)
    return _Some(tokens, jnp.take_along_axis(some.log_probabilities, at, axis=1), scores), at


def _moved(kept: Kept, sources: Int[Array, "N K"]) -> Kept:
    """The keys and values of the beams that go on, in their order."""
    N, K = sources.shape
    rows = (jnp.arange(N)[:, None] * K + sources).reshape(N * K)
    return Kept(*(a[:, rows] for a in kept))
