"""What is drawn anew for every record of a batch. B: records, h, w, c: the shape of a latent.

Everything is a function of the seed and of the record's position in the global stream alone, so it is the same on any
number of hosts, in any number of workers, and after a resume. The 64-bit words come from Philox, a counter-based
generator whose stream NumPy keeps for good (NEP 19 frees ``Generator``'s distributions, not the words below them).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, UInt64

_FLIPS, _NORMALS = 1, 2  # streams of their own
_BLOCK = 4  # words that Philox makes of one count


def flips(seed: int, first: int, count: int) -> Bool[np.ndarray, " B"]:
    """Which of ``count`` records, counted from position ``first`` of the stream, are mirrored: half of all."""
    return _words(seed, _FLIPS, first, count) >> np.uint64(63) == 1


def normals(seed: int, first: int, count: int, shape: tuple[int, int, int]) -> Float[np.ndarray, "B h w c"]:
    """Standard normal float32 for ``count`` records from position ``first`` of the stream, by Box and Muller (1958)."""
    size = math.prod(shape)
    pairs = -(-size // (2 * _BLOCK)) * _BLOCK  # a word gives two numbers; whole blocks for every record
    words = _words(seed, _NORMALS, first * pairs, count * pairs).reshape(count, pairs)
    uniform = ((words >> np.uint64(32)).astype(np.float32) + np.float32(0.5)) * np.float32(2**-32)  # never 0
    angle = (words & np.uint64(2**32 - 1)).astype(np.float32) * np.float32(2 * math.pi * 2**-32)
    radius = np.sqrt(np.float32(-2) * np.log(uniform))
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return both[:, :size].reshape(count, *shape)


def _words(seed: int, purpose: int, first: int, count: int) -> UInt64[np.ndarray, " count"]:
    """``count`` words from number ``first`` of the stream for one purpose."""
    philox = np.random.Philox(key=np.asarray([seed, purpose], np.uint64), counter=first // _BLOCK)
    return philox.random_raw(first % _BLOCK + count)[first % _BLOCK :]
