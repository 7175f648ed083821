"""What a caption is asked to be, checked. N images, P tokens of a prompt, V vocabulary."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kind_jax import partition
from kind_jax.captioning import network
from kind_jax.config.check import is_whole, require
from kind_jax.config.coca import CoCaConfig


class Rules(NamedTuple):
    """Which words there may be: int32 arguments of what is compiled.

    Attributes:
      begun: [N, length], the token that begins a caption, the prompt, and padding.
      given: how many of these are given.
      least: tokens of a caption at least, ``bos`` and ``eos`` among them.
    """

    begun: Any
    given: Any
    least: Any
    bos: Any
    eos: Any
    pad: Any


class Asked(NamedTuple):
    """Tokens of images, and the rules of their captions."""

    tokens: Float[Array, "N Q D"]
    rules: Rules


def asked(
    config: CoCaConfig,
    collections: partition.Collections,
    images: Any,
    *,
    bos: int,
    eos: int,
    pad: int,
    length: int | None,
    min_length: int,
    prompt: Any,
) -> Asked:
    """What decoding takes; see :func:`kind_jax.captioning.decode.greedy`.

    Raises:
      UserError: see there.
    """
    marks = {"bos": bos, "eos": eos, "pad": pad}
    for name, value in marks.items():
        possible = is_whole(value) and 0 <= value < config.vocabulary
        require(possible, name, value, f"a token, a whole number from 0 to {config.vocabulary - 1}")
    require(len(set(marks.values())) == 3, "eos", eos, f"another token than bos, {bos}, and pad, {pad}, which differ")
    length = config.context if length is None else length
    possible = is_whole(length) and 2 <= length <= config.context
    require(possible, "length", length, f"a whole number from 2 to {config.context}, which is model.context")
    possible = is_whole(min_length) and 0 <= min_length <= length
    require(possible, "min_length", min_length, f"a whole number from 0 to {length}, the length")
    tokens = _tokens(config, collections, images)
    begun = _begun(config, prompt, len(tokens), length, marks)
    numbers = (begun.shape[1], min_length, bos, eos, pad)
    filled = np.full((len(tokens), length), pad, np.int32)
    filled[:, : begun.shape[1]] = begun
    return Asked(tokens, Rules(filled, *(np.int32(n) for n in numbers)))  # NumPy's are for all hosts alike


def _tokens(config: CoCaConfig, collections: partition.Collections, images: Any) -> Any:
    queries = config.queries - (config.pooler == "first")
    encoded, shape = (queries, config.text.width), (config.size, config.size, config.channels)
    found = getattr(images, "shape", type(images).__name__)
    possible = isinstance(found, tuple) and len(found) in (3, 4) and found[1:] in (encoded, shape) and found[0] > 0
    require(possible, "images", found, f"an array of images, [N, *{shape}], or of what captions see, [N, *{encoded}]")
    require(jnp.issubdtype(images.dtype, jnp.floating), "images", images.dtype, "float, nominally in [-1, 1]")
    return images if images.ndim == 3 else _encoded(config, collections, images)


@functools.partial(jax.jit, static_argnums=0)
def _encoded(config: CoCaConfig, collections: Any, images: Any) -> Any:
    return network.encode_image(config, collections, images)[1]


def _begun(config: CoCaConfig, prompt: Any, count: int, length: int, marks: dict[str, int]) -> Any:
    """``bos`` and the prompt of each image."""
    begun = np.full((count, 1), marks["bos"], np.int32)
    if prompt is None:
        return begun
    rows = np.asarray(prompt)
    rows = rows[None] if rows.ndim == 1 else rows
    possible = rows.ndim == 2 and len(rows) in (1, count) and (np.issubdtype(rows.dtype, np.integer) or not rows.size)
    require(possible, "prompt", rows.shape, f"whole numbers, a row of them or one for each of {count} images")
    fits = rows.shape[1] <= length - 2
    require(fits, "prompt", f"{rows.shape[1]} tokens", f"{length - 2} at most, the length without bos and a word more")
    words = set(np.unique(rows).tolist())
    odd = [word for word in sorted(words) if not 0 <= word < config.vocabulary or word in marks.values()]
    wanted = f"made of words, from 0 to {config.vocabulary - 1}, without bos, eos and pad, which are for this to set"
    require(not odd, "prompt", odd, wanted)
    return np.concatenate([begun, np.broadcast_to(rows, (count, rows.shape[1])).astype(np.int32)], axis=1)


def possible_words(
    logits: Float[Array, "B V"], position: Int[Array, ""], begun: Int[Array, " B"], rules: Rules
) -> Float[Array, "B V"]:
    """The model's log-probabilities of the words that may stand at ``position``; -inf of others.

    ``bos`` and padding are no words, and ``eos`` comes when there are enough. Where a prompt is given its token is
    certain, log-probability 0: a prompt is not the model's.

    Args:
      begun: the token that is given at this position.
    """
    words = jnp.arange(logits.shape[-1])
    barred = (words == rules.bos) | (words == rules.pad) | ((words == rules.eos) & (position + 1 < rules.least))
    free = jnp.where(barred[None, :], -jnp.inf, jax.nn.log_softmax(logits))
    forced = jnp.where(words[None, :] == begun[:, None], 0.0, -jnp.inf)
    return jnp.where(position < rules.given, forced, free)
