"""One caption of each image, one word at a time. N images, Q tokens of an image, V vocabulary."""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, PRNGKeyArray

from kind_jax import partition
from kind_jax.captioning import network
from kind_jax.captioning.decode.request import Asked, asked, possible_words
from kind_jax.config.check import is_whole, require
from kind_jax.config.coca import CoCaConfig


class Captions(NamedTuple):
    """One caption of each image.

    Attributes:
      tokens: ``bos``, the prompt, words, ``eos`` unless the length ran out, and ``pad`` behind it.
      log_probabilities: of what follows the prompt, under the model as it is, whatever it was chosen by.
    """

    tokens: Int32[Array, "N length"]
    log_probabilities: Float[Array, " N"]


class _Draw(NamedTuple):
    key: PRNGKeyArray
    temperature: Any
    top_p: Any


def greedy(
    config: CoCaConfig,
    collections: partition.Collections,
    images: Any,
    *,
    bos: int,
    eos: int,
    pad: int = 0,
    length: int | None = None,
    min_length: int = 0,
    prompt: Any = None,
) -> Captions:
    """The most probable word each time.

    Args:
      images: [N, H, W, C] in [-1, 1], or what captions see of them, [N, Q, D], as
        :func:`kind_jax.captioning.network.encode_image` gives it.
      bos, eos, pad: the tokens that begin a caption, end it, and fill what is behind, from the tokenizer.
      length: tokens of a caption at most, ``bos`` and ``eos`` among them; None for ``model.context``.
      min_length: tokens at least, counted in the same way.
      prompt: tokens that captions begin with behind ``bos``, [P] for all images or [N, P].

    Raises:
      UserError: images of another shape; a length above ``model.context`` or below 2, or a min_length above the
        length; a prompt that is too long or has tokens that are no words; or a mark that is no token.
    """
    wanted = asked(
        config, collections, images, bos=bos, eos=eos, pad=pad, length=length, min_length=min_length, prompt=prompt
    )
    return _written(config, collections, wanted, None, None)


def sample(
    config: CoCaConfig,
    collections: partition.Collections,
    images: Any,
    key: PRNGKeyArray,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    bos: int,
    eos: int,
    pad: int = 0,
    length: int | None = None,
    min_length: int = 0,
    prompt: Any = None,
) -> Captions:
    """Words drawn by their probabilities.

    Args:
      key: of all randomness.
      temperature: by which logits are divided.
      top_k: draw among this many of the most probable words; None for all.
      top_p: draw among the fewest of the most probable words that together are as probable as this, at the temperature
        and among the ``top_k`` (nucleus sampling, Holtzman et al. 2020); None, or 1, for all.
      images, bos, eos, pad, length, min_length, prompt: see :func:`greedy`.

    Raises:
      UserError: as :func:`greedy`, or a temperature that is not positive, a top_k outside of the vocabulary, or a top_p
        that is no probability above 0.
    """
    possible = _is_number(temperature) and 0 < temperature < math.inf
    require(possible, "temperature", temperature, "a number above 0 (greedy takes the most probable word)")
    possible = top_k is None or (is_whole(top_k) and 1 <= top_k <= config.vocabulary)
    require(possible, "top_k", top_k, f"a whole number from 1 to {config.vocabulary}, or None")
    possible = top_p is None or (_is_number(top_p) and 0 < top_p <= 1)
    require(possible, "top_p", top_p, "above 0 and at most 1, or None")
    wanted = asked(
        config, collections, images, bos=bos, eos=eos, pad=pad, length=length, min_length=min_length, prompt=prompt
    )
    draw = _Draw(key, np.float32(temperature), None if top_p in (None, 1) else np.float32(top_p))
    return _written(config, collections, wanted, draw, None if top_k is None else int(top_k))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


class _State(NamedTuple):
    position: Int[Array, ""]
    tokens: Int[Array, "N length"]
    log_probabilities: Float[Array, " N"]
    ended: Any
    writing: Any


@functools.partial(jax.jit, static_argnums=(0, 4))
def _written(config: CoCaConfig, collections: Any, wanted: Asked, draw: _Draw | None, top_k: int | None) -> Captions:
    net, rules = network.opened(config, collections), wanted.rules
    N, length = rules.begun.shape

    def more(state: _State) -> Any:
        return (state.position < length - 1) & ~jnp.all(state.ended)

    def step(state: _State) -> _State:
        position, tokens, total, ended, writing = state
        logits, writing = net.step(tokens[:, position], position, writing)
        position = position + 1
        words = possible_words(logits, position, rules.begun[:, position], rules)
        word = jnp.argmax(words, axis=-1) if draw is None else _drawn(words, draw, top_k, position)
        word = jnp.where(ended, rules.pad, word.astype(jnp.int32))
        gained = jnp.take_along_axis(words, word[:, None], axis=1)[:, 0]
        total = total + jnp.where(ended, 0.0, gained)
        return _State(position, tokens.at[:, position].set(word), total, ended | (word == rules.eos), writing)

    start = _State(
        jnp.int32(0), rules.begun, jnp.zeros(N), jnp.zeros(N, bool), net.begin(wanted.tokens, length)
    )  # fmt: skip
    found = jax.lax.while_loop(more, step, start)
    return Captions(found.tokens, found.log_probabilities)


def _drawn(words: Float[Array, "N V"], draw: _Draw, top_k: int | None, position: Int[Array, ""]) -> Int[Array, " N"]:
    scaled = words / draw.temperature
    if top_k is not None:
        scaled = _at_least(scaled, jax.lax.top_k(scaled, top_k)[0][:, -1])
    if draw.top_p is not None:
        ordered = -jnp.sort(-scaled, axis=-1)
        p = jax.nn.softmax(ordered)
        inside = jnp.cumsum(p, axis=-1) - p < draw.top_p  # what is before a word does not suffice without it
        scaled = _at_least(scaled, jnp.min(jnp.where(inside, ordered, jnp.inf), axis=-1))
    return jax.random.categorical(jax.random.fold_in(draw.key, position), scaled)


def _at_least(x: Float[Array, "N V"], least: Float[Array, " N"]) -> Float[Array, "N V"]:
    return jnp.where(x < least[:, None], -jnp.inf, x)
