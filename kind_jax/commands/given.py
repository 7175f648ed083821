"""The settings that a command line gives itself, for config files whose other settings follow from them."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import tyro

from kind_jax.commands.console import option
from kind_jax.commands.repeated import values_of
from kind_jax.config import Config, presets
from kind_jax.errors import UserError


def base_config(arguments: type, args: list[str], without: Config) -> Config:
    """The config of ``--config``, whose settings are the defaults of all other options, so it is read first.

    Args:
      arguments: the dataclass that ``args`` will be parsed as.
      without: what there is without ``--config``.

    Raises:
      UserError: as :func:`kind_jax.config.presets.load`.
    """
    path = option(args, "--config")
    if path is None:
        return without
    try:
        return presets.load(path, settings_given(arguments, args))
    except UserError:
        if {"-h", "--help"} & set(args):  # which does not need what is missing
            return without
        raise


def settings_given(arguments: type, args: list[str]) -> dict[str, Any]:
    """The settings in ``args`` by their dotted names, in their types; what cannot be parsed is left to the parser."""
    types, found = _types(Config), {}
    for name, values in values_of(arguments, args).items():
        setting = name.replace("-", "_")
        if setting not in types:
            continue
        if types[setting] is bool:
            found[setting] = values == ("True",)
            continue
        try:
            found[setting] = tyro.cli(types[setting], args=list(values), console_outputs=False)
        except SystemExit:
            continue
    return found


def _types(settings: type, prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, hint in typing.get_type_hints(settings).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found |= _types(hint, f"{prefix}{name}.")
        elif not name.startswith("_"):
            found[f"{prefix}{name}"] = hint
    return found
