"""Text as numbers and back, behind one protocol, and captions as rows of one length.

N: captions, L: tokens of a row. Sources: the bytes of ByT5 (Xue et al. 2022, arXiv 2105.13626) with three specials in
front, and the byte-pair encoding of CLIP (Radford et al. 2021, arXiv 2103.00020).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable

NAMES = ("bytes", "clip")
_SHOWN = 80  # characters of a caption in an error


@runtime_checkable
class Tokenizer(Protocol):
    """What turns text into numbers from 0 to ``vocabulary`` - 1."""

    @property
    def name(self) -> str:
        """What :func:`tokenizer_of` knows it by."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many tokens there are, specials included."""
        ...

    @property
    def pad(self) -> int:
        """Fills a row behind the end; 0 in every tokenizer."""
        ...

    @property
    def bos(self) -> int:
        """Begins a row."""
        ...

    @property
    def eos(self) -> int:
        """Ends the text of a row."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies the numbers that a text gets: two tokenizers of one fingerprint are the same."""
        ...

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without specials."""
        ...

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of tokens up to the first ``eos``, without specials.

        Raises:
          UserError: a number is no token.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Bytes:
    """UTF-8, one token a byte: 0 is pad, 1 bos, 2 eos, and the byte b is b + 3."""

    name: str = "bytes"
    vocabulary: int = 259
    pad: int = 0
    bos: int = 1
    eos: int = 2
    fingerprint: str = "bytes: pad, bos, eos, then UTF-8"

    def encode(self, text: str) -> list[int]:
        return [byte + 3 for byte in text.encode("utf-8", errors="replace")]  # half a surrogate pair has no bytes

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """As :meth:`Tokenizer.decode`; bytes that are no UTF-8 become U+FFFD."""
        return bytes(i - 3 for i in before_eos(self, ids) if i >= 3).decode("utf-8", errors="replace")


def before_eos(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> list[int]:
    """The numbers before the first ``eos``, all of which are tokens.

    Raises:
      UserError: one is not, before the end or behind it.
    """
    found = [int(i) for i in ids]
    if wrong := [i for i in found if not 0 <= i < tokenizer.vocabulary]:
        raise UserError(
            f"the tokens to decode include {wrong[0]}, but the tokenizer {tokenizer.name!r} has those from 0 to "
            f"{tokenizer.vocabulary - 1}."
        )
    return found[: found.index(tokenizer.eos)] if tokenizer.eos in found else found


@functools.cache
def tokenizer_of(name: str) -> Tokenizer:
    """The tokenizer of a name, ``bytes`` or ``clip``.

    Raises:
      UserError: there is no such tokenizer, or a package that it needs is not installed.
    """
    if name == "bytes":
        return Bytes()
    if name == "clip":
        from kind_jax.text.clip import Clip  # needs packages that are optional

        return Clip()
    raise UserError(f"the tokenizer is {name!r:.200}, but it must be one of {', '.join(NAMES)}.")


class Rows(NamedTuple):
    """Captions as rows.

    Attributes:
      tokens: bos, the text, eos, and pad to the end.
      cut: how many captions were too long, and lost what did not fit.
    """

    tokens: Int32[np.ndarray, "N L"]
    cut: int


def rows(tokenizer: Tokenizer, texts: Sequence[str], length: int, *, truncate: bool = False) -> Rows:
    """Captions as rows of one length.

    Args:
      tokenizer: what makes tokens of them.
      texts: one caption a row.
      length: L, tokens of a row, ``bos`` and ``eos`` among them: 3 or more.
      truncate: whether a caption that does not fit loses its end, in front of ``eos``.

    Raises:
      UserError: a caption is empty, or does not fit and ``truncate`` is off; or ``length`` is too small.
    """
    if length < 3:
        raise UserError(f"the length of a caption's row is {length} tokens, but it must be 3 or more.")
    tokens, cut = np.full((len(texts), length), tokenizer.pad, np.int32), 0
    for number, (row, text) in enumerate(zip(tokens, texts, strict=True)):
        found = tokenizer.encode(text)
        if not text.strip() or not found:
            raise UserError(f"the caption of record {number} is empty, but it must have text.")
        if len(found) > length - 2:
            if not truncate:
                raise UserError(
                    f"the caption {printable(text, _SHOWN)!r} of record {number} has {len(found)} tokens of "
                    f"{tokenizer.name!r}, but with bos and eos it must fit into {length}, so it may have at most "
                    f"{length - 2}."
                )
            found, cut = _whole(tokenizer, found[: length - 2]), cut + 1
            if not found:
                raise UserError(
                    f"the length of a row is {length} tokens, too few for a character of {printable(text, 80)!r}."
                )
        row[: len(found) + 2] = [tokenizer.bos, *found, tokenizer.eos]
    return Rows(tokens, cut)


def _whole(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """The tokens without those at the end that are the beginning of a character alone."""
    while ids and tokenizer.decode(ids).endswith("\N{REPLACEMENT CHARACTER}"):
        ids = ids[:-1]
    return ids
