"""The settings that a command line gives itself, for config files whose other settings follow from them."""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from typing import Any

import pydantic

from kind_jax.commands.console import option
from kind_jax.commands.repeated import dataclasses_of, values_of
from kind_jax.config import RunConfig, is_of, presets
from kind_jax.errors import UserError

C = typing.TypeVar("C", bound=RunConfig)


def base_config(arguments: type, args: list[str], without: C, kind: type[C] | None = None) -> C:
    """The config of ``--config``, whose settings are the defaults of all other options, so it is read first.

    Args:
      arguments: the dataclass that ``args`` will be parsed as.
      without: what there is without ``--config``.
      kind: what the config must be of; None is the kind of ``without``.

    Raises:
      UserError: as :func:`kind_jax.config.presets.load`, or a config of another kind.
    """
    path = option(args, "--config")
    if path is None:
        return without
    try:
        config = presets.load(path, settings_given(arguments, args))
    except UserError:
        if {"-h", "--help"} & set(args):  # which does not need what is missing
            return without
        raise
    if not is_of(config, kind or type(without)):
        raise UserError(f"--config {path} is of the kind {config.task!r}, but it must be {without.task!r} here.")
    return config  # pyright: ignore[reportReturnType]


def settings_given(arguments: type, args: list[str]) -> dict[str, Any]:
    """The settings in ``args`` by their dotted names, in their types; what cannot be parsed is left to the parser."""
    types, found = _types(RunConfig), {}
    for name, values in values_of(arguments, args).items():
        setting = name.replace("-", "_")
        if setting not in types:
            continue
        adapter = pydantic.TypeAdapter(types[setting])
        for guess in (tuple(map(_number, values)), values):  # a number where one is possible, as the parser has it
            with contextlib.suppress(pydantic.ValidationError):
                found[setting] = adapter.validate_python(guess if _is_list(types[setting]) else guess[-1])
                break
    return found


def _number(text: str) -> int | float | bool | str | None:
    words = {"None": None, "True": True, "False": False}
    if text in words:
        return words[text]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _is_list(hint: Any) -> bool:
    return any(typing.get_origin(part) is tuple for part in (hint, *typing.get_args(hint)))


def _types(settings: Any, prefix: str = "", around: tuple[type, ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in dataclasses_of(settings):
        if each in around:  # a network that may hold others of its own kind
            continue
        hints = typing.get_type_hints(each)
        for field in dataclasses.fields(each):
            name, hint = f"{prefix}{field.name}", hints[field.name]
            if dataclasses_of(hint):
                found |= _types(hint, f"{name}.", (*around, each))
            else:  # of two networks, one may have a whole number where another has any
                found[name] = found[name] | hint if name in found and found[name] != hint else hint
    return found
