"""The data sets made from packages that ``data.source`` names, each a TFDS builder in a file of its own."""

from __future__ import annotations

import importlib
from typing import Any, get_args

from kind_jax.config.training import PackagedSource
from kind_jax.errors import UserError


def builder_of(source: str) -> Any:
    """The TFDS builder class of a data set, like ``Digits`` in ``kind_jax.data.digits``.

    It is found by name, so that a run imports only the builder that it uses.

    Raises:
      UserError: there is no such data set.
    """
    if source not in get_args(PackagedSource):
        raise UserError(f"data.source is {source!r}, but it must be one of {', '.join(get_args(PackagedSource))}.")
    return getattr(importlib.import_module(f"kind_jax.data.{source}"), source.capitalize())
