"""Captions of a data set as tokens. N records, C captions of a record, T tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from kind_jax.captioning.config import CaptionRun
from kind_jax.config.check import refuse
from kind_jax.data.sets import Dataset
from kind_jax.errors import UserError
from kind_jax.text.tokenizer import Tokenizer, rows, tokenizer_of
from kind_jax.untrusted.text import printable


class Tokens(NamedTuple):
    """Captions; a record with fewer than others has rows of padding behind its own."""

    tokens: Int32[np.ndarray, "N C T"]
    counts: Int32[np.ndarray, " N"]


def captions_of(dataset: Dataset) -> tuple[tuple[str, ...], ...]:
    """The captions of each record.

    Raises:
      UserError: the data set has none.
    """
    if dataset.captions is None:
        name, split = (dataset.fingerprint.get(each) for each in ("name", "split"))
        raise UserError(f"the {split} split of the data set {name} has no captions, but each image must have one.")
    return dataset.captions


def tokens_of(config: CaptionRun, captions: Sequence[Sequence[str]]) -> Tokens:
    """The captions as the model reads them.

    Raises:
      UserError: one is empty, or longer than the context where ``text.truncate`` is off.
    """
    counts = np.asarray([len(each) for each in captions], np.int32)
    flat = [text for each in captions for text in each]
    tokenizer, settings = tokenizer_of(config.text.tokenizer), config.text
    room = config.model.context - 2
    if not settings.truncate and any(len(tokenizer.encode(text)) > room for text in flat):
        longest = max(flat, key=lambda text: len(tokenizer.encode(text)))
        needed = len(tokenizer.encode(longest)) + 2  # with the tokens that begin and end it
        raise UserError(
            f"model.context is {config.model.context}, but it must be {needed} or more for the caption "
            f"{printable(longest, 80)!r}; text.truncate cuts captions that are longer."
        )
    found = rows(tokenizer, flat, config.model.context, truncate=settings.truncate).tokens
    tokens = np.zeros((len(captions), max(counts.max(initial=0), 1), config.model.context), np.int32)
    record = np.repeat(np.arange(len(captions)), counts)
    tokens[record, np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)] = found
    return Tokens(tokens, counts)


def check_data(config: CaptionRun, dataset: Dataset) -> list[str]:
    """Refuse a model that is not made for the images or captions of a data set.

    Returns:
      Remarks.

    Raises:
      UserError: naming all settings that do not fit, and options that would.
    """
    settings, problems, fitting = config.model, [], {}
    captions_of(dataset)
    shape = (settings.size, settings.size, settings.channels)
    if dataset.image_shape != shape:
        problems.append(
            f"model.size and model.channels are for images {shape}, but data.source {config.data.source!r} has "
            f"{dataset.image_shape}."
        )
        fitting |= {"size": dataset.image_shape[0], "channels": dataset.image_shape[-1]}
    tokenizer = tokenizer_of(config.text.tokenizer)
    if settings.vocabulary != tokenizer.vocabulary:
        problems.append(
            f"model.vocabulary is {settings.vocabulary}, but text.tokenizer {tokenizer.name!r} has "
            f"{tokenizer.vocabulary} tokens."
        )
        fitting["vocabulary"] = tokenizer.vocabulary
    if fitting:
        options = " ".join(f"--model.{name} {value}" for name, value in fitting.items())
        problems.append(f"{options} would fit.")
    refuse(problems)
    tokens_of(config, captions_of(dataset))  # refused now, not behind the first steps
    return []


def decoded(tokenizer: Tokenizer, tokens: Int32[np.ndarray, "N T"]) -> list[str]:
    """The texts of captions: from the token that begins one to the one that ends it."""
    return [tokenizer.decode(row) for row in np.asarray(tokens)]


def spread(total: int, most: int) -> list[int]:
    """Numbers from all over 0 to ``total`` - 1, for a picture."""
    return np.unique(np.linspace(0, total - 1, most).astype(int)).tolist()
