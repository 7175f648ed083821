"""The data sets that ``data.source`` names, each a TFDS builder in a file of its own."""

from __future__ import annotations

import importlib
from typing import Any

from kind_jax.errors import UserError

# By name, so that a run imports only the builder that it uses.
_BUILDERS = {
    "digits": ("kind_jax.data.digits", "Digits"),
    "glyphs": ("kind_jax.data.glyphs", "Glyphs"),
    "textures": ("kind_jax.data.textures", "Textures"),
}


def builder_of(source: str) -> Any:
    """The TFDS builder class of a data set; a new one takes a builder and a line of ``_BUILDERS``.

    Raises:
      UserError: there is no such data set.
    """
    if source not in _BUILDERS:
        raise UserError(f"data.source is {source!r}, but it must be one of {', '.join(_BUILDERS)}.")
    module, name = _BUILDERS[source]
    return getattr(importlib.import_module(module), name)
