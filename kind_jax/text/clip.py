"""CLIP's byte-pair encoding: the vocabulary inside the package open_clip_torch, and the library tokenizers.

The vocabulary is read as a file: importing open_clip would import PyTorch, which nothing here needs.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import html
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kind_jax.errors import UserError
from kind_jax.text.tokenizer import before_eos
from kind_jax.untrusted.regular import read_small

_FILE = "bpe_simple_vocab_16e6.txt.gz"
_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"  # the same since CLIP was published
_LARGEST = 64 << 20  # bytes, packed or not
_MERGES = 49152 - 256 - 2  # that CLIP takes of those in the file, whose first line is a comment
_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
INSTALL = "pip install ftfy tokenizers && pip install --no-deps open-clip-torch"  # its code alone needs PyTorch


class Clip:
    """The tokens that CLIP and CoCa of open_clip have for a text, without the specials that it may spell.

    Text is repaired by ftfy, written in small letters with single spaces, and cut into words, numbers and signs, of
    which byte-pair encoding makes tokens; the last of a word is one that ends words. So ``decode`` gives back small
    letters, with a space behind every word and sign. Token 0 is pad and, as in open_clip, a ``!`` in the middle of
    signs as well: zeros at the end are pad.
    """

    name = "clip"
    pad = 0

    def __init__(self) -> None:
        """Read the vocabulary.

        Raises:
          UserError: a package is not installed, or its vocabulary is damaged.
        """
        tokenizers, self._ftfy = (_library(name) for name in ("tokenizers", "ftfy"))
        packed = read_small(_path(), _LARGEST)
        digest = hashlib.sha256(packed).hexdigest()
        if digest != _SHA256:
            raise UserError(f"{_path()} has the SHA-256 {digest}, but it must be that of CLIP's vocabulary, {_SHA256}.")
        with gzip.open(io.BytesIO(packed)) as file:
            lines = file.read(_LARGEST).decode().split("\n")
        merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines[1 : _MERGES + 1])]
        alphabet = _alphabet()
        words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *map("".join, merges)]
        self._words = words
        self._bytes = {letter: byte for byte, letter in zip(_order(), alphabet, strict=True)}
        model = tokenizers.models.BPE(
            vocab={word: number for number, word in enumerate(words)}, merges=merges, end_of_word_suffix="</w>"
        )
        self._encoder = tokenizers.Tokenizer(model)
        parts = tokenizers.pre_tokenizers
        self._encoder.pre_tokenizer = parts.Sequence(
            [
                parts.Split(tokenizers.Regex(_PATTERN), behavior="removed", invert=True),
                parts.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        self.bos, self.eos = len(words), len(words) + 1
        self.vocabulary = len(words) + 2
        self.fingerprint = f"clip: {digest}"

    def encode(self, text: str) -> list[int]:
        repaired = html.unescape(html.unescape(self._ftfy.fix_text(text)))
        return self._encoder.encode(" ".join(repaired.split()).lower()).ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        found = before_eos(self, ids)
        while found and found[-1] == self.pad:
            found.pop()
        text = "".join(self._words[i] for i in found if i < self.bos).replace("</w>", " ")
        data = b"".join(b" " if letter == " " else bytes([self._bytes[letter]]) for letter in text)
        return data.decode("utf-8", errors="replace").strip()


def _library(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise _missing(name)
    return importlib.import_module(name)


def _path() -> Path:
    spec = importlib.util.find_spec("open_clip")  # finds the package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise _missing("open_clip_torch")
    return Path(spec.submodule_search_locations[0], _FILE)


def _missing(package: str) -> UserError:
    return UserError(
        f"the tokenizer is 'clip', but the package {package} that it needs is not installed; `{INSTALL}` installs all "
        "that it needs."
    )


@functools.cache
def _order() -> tuple[int, ...]:
    """The 256 bytes in the order of their tokens: first those that are visible in Latin-1."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return (*visible, *(byte for byte in range(256) if byte not in set(visible)))


@functools.cache
def _alphabet() -> tuple[str, ...]:
    """The letter that stands for each byte of :func:`_order` in vocabularies of bytes: a visible one is itself."""
    visible = 94 + 12 + 82
    return tuple(chr(byte) if rank < visible else chr(256 + rank - visible) for rank, byte in enumerate(_order()))
