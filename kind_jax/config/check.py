"""What every settings class uses: strict reading, refusals that name the field, and changes of nested fields."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import numbers
import os
import re
import typing
import unicodedata
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pydantic

from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable, short

# A saved config is data: an unknown field or a string where a number belongs is an error, not something to coerce.
STRICT = pydantic.ConfigDict(extra="forbid", strict=True)


# What is wrong with the config that is being checked, and with all configs that are being read; None: raise at once.
_here: ContextVar[list[str] | None] = ContextVar("_here", default=None)
_outside: ContextVar[list[str] | None] = ContextVar("_outside", default=None)


def require(condition: bool, field: str, found: object, wanted: str) -> bool:
    """Raise a UserError naming the field, the value found and the value wanted, unless ``condition`` holds.

    Inside :func:`gathered` the sentence is kept for the end of the block instead.

    Returns:
      Whether it holds.
    """
    if condition:
        return True
    sentence = f"{field} is {short(found, 200)}, but it must be {wanted}."
    problems = _here.get()
    if problems is None:
        raise UserError(sentence)
    problems.append(sentence)
    return False


@contextlib.contextmanager
def gathered() -> Iterator[None]:
    """Around the checks of one config: all that is wrong with it is said in one sentence, not the first problem alone.

    What is computed from a value that was refused may fail, so an exception after a refusal ends the block quietly.

    Raises:
      UserError: at the end of the block, or at that of :func:`together` around it.
    """
    problems: list[str] = []
    with _collecting(_here, problems):
        yield
    outside = _outside.get()
    if outside is None:
        refuse(problems)
    else:
        outside += problems


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Around the reading of nested configs: what is wrong with all of them is said at the end of the block.

    Raises:
      UserError: one for all problems.
    """
    problems: list[str] = []
    outer = _here.set(None)
    try:
        with _collecting(_outside, problems):
            yield
    finally:
        _here.reset(outer)
    refuse(problems)


@contextlib.contextmanager
def _collecting(where: ContextVar[list[str] | None], problems: list[str]) -> Iterator[None]:
    token = where.set(problems)
    try:
        yield
    except UserError as e:
        problems.append(str(e))
    except Exception:
        if not problems:
            raise
    finally:
        where.reset(token)


def refuse(problems: list[str]) -> None:
    """Raise a UserError that says all of ``problems``, each a sentence; does nothing if there are none."""
    once = list(dict.fromkeys(problems))
    if once:
        raise UserError("; ".join([*(p.removesuffix(".") for p in once[:-1]), once[-1]]))


def require_hash(field: str, value: str | None) -> None:
    """Refuse what is no SHA-256, in hexadecimal, in a field that a run writes itself; None: it has not yet."""
    possible = value is None or re.fullmatch(r"[0-9a-f]{64}", value) is not None
    require(possible, field, value, "a SHA-256, which the run writes itself")


def check_seed(seed: object, name: str = "seed") -> int:
    """A seed as an int.

    Raises:
      UserError: it is no whole number from 0 to 2³² - 1.
    """
    whole = int(seed) if is_whole(seed) else -1
    require(0 <= whole < 2**32, name, seed, f"a whole number between 0 and {2**32 - 1}")
    return whole


def is_whole(value: object) -> TypeGuard[int]:
    """Whether something is an int, of Python or NumPy; a bool is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_path(value: object, name: str, wanted: str = "the path of a folder") -> Path:
    """A path, given as text or as one.

    Raises:
      UserError: it is neither, empty, or no path that a file can have.
    """
    require(isinstance(value, str | os.PathLike) and bool(str(value)), name, value, wanted)
    clean = not any(unicodedata.category(c) == "Cc" for c in str(value))
    short = all(len(part.encode("utf-8", "replace")) <= 255 for part in Path(str(value)).parts)
    require(clean and short, name, value, f"{wanted}, without control characters and names of more than 255 bytes")
    return Path(value)  # pyright: ignore[reportArgumentType]


def check_choice(value: object, choices: Any, name: str) -> None:
    """Refuse what is not one of the strings of a Literal.

    Raises:
      UserError: naming the setting, the value and all choices.
    """
    known = typing.get_args(choices)
    require(isinstance(value, str) and value in known, name, value, f"one of {', '.join(map(repr, known))}")


def problem(error: pydantic.ValidationError) -> str:
    """The first thing that is wrong with data from a file: the field and the reason, fit for a terminal."""
    first = error.errors()[0]
    field = printable(".".join(str(part) for part in first["loc"])) or "the file"
    reason = printable(first.get("ctx", {}).get("error", first["msg"]), 600)
    return f"{field}: {reason.rstrip('.')}"


def change(config: Any, **settings: Any) -> Any:
    """``config`` with fields replaced; a dict replaces fields of a nested config.

    Paths, lists and NumPy's numbers become what a saved config has: text, tuples and Python's numbers.

    Raises:
      UserError: a name of no setting, a value of another type, or one that the settings refuse.
    """
    return _changed(config, settings, "")


def _changed(config: Any, settings: dict[str, Any], prefix: str) -> Any:
    settled = dataclasses.is_dataclass(config) and not isinstance(config, type)
    require(settled, prefix.removesuffix(".") or "config", config, "settings, as kj.preset gives them")
    types, values = _types(type(config)), {}
    for name, value in settings.items():
        whole = f"{prefix}{name}"
        if name not in types:
            close = difflib.get_close_matches(str(name), types, 1)
            hint = f" (near it is {prefix}{close[0]})" if close else ""
            raise UserError(f"a setting is given as {whole!r:.200}, but there is none of that name{hint}.")
        if isinstance(value, dict) and dataclasses.is_dataclass(getattr(config, name)):
            values[name] = _changed(getattr(config, name), value, f"{whole}.")
        else:
            values[name] = _typed(whole, value, types[name])
    return dataclasses.replace(config, **values)  # pyright: ignore[reportArgumentType]


def check_type(kind: type, name: str, value: object) -> None:
    """Refuse a value that a field of settings cannot have; ``name`` is dotted, and one of no field is left alone.

    Raises:
      UserError: naming it.
    """
    field = _types(kind).get(name.rpartition(".")[2])
    if field is not None:
        _typed(name, value, field)


@functools.lru_cache
def _types(kind: type) -> dict[str, pydantic.TypeAdapter]:
    """What tells of each field of settings whether a value has its type."""
    hints = typing.get_type_hints(kind)
    return {field.name: _adapter(hints[field.name]) for field in dataclasses.fields(kind)}


def _adapter(hint: Any) -> pydantic.TypeAdapter:
    try:
        return pydantic.TypeAdapter(hint, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    except pydantic.PydanticUserError:  # of settings, which have a config of their own
        return pydantic.TypeAdapter(hint)


def _typed(name: str, value: Any, adapter: pydantic.TypeAdapter) -> Any:
    try:
        return adapter.validate_python(plain(value), strict=True)
    except pydantic.ValidationError as e:
        wanted = dict.fromkeys(_wanted(error["msg"]) for error in e.errors())
        require(False, name, value, " or ".join(wanted))
        return value


def _wanted(message: str) -> str:
    """What pydantic misses, as the end of a sentence."""
    return message.removeprefix("Input should be ").removeprefix("an instance of ").rstrip(".")


def plain(value: Any) -> Any:
    """A setting as a saved config has it: text in place of a path, tuples of lists, Python's numbers of NumPy's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return tuple(plain(each) for each in value)
    return value
