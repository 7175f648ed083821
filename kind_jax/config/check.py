"""What every settings class uses: strict reading, refusals that name the field, and changes of nested fields."""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
import os
import re
import typing
import unicodedata
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeGuard

import pydantic

from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable

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
    value = " ".join(repr(found).split())  # an array's has lines
    sentence = f"{field} is {value if len(value) <= 200 else f'{value[:200]}…'}, but it must be {wanted}."
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
    """``config`` with fields replaced; a dict replaces fields of a nested config."""
    return dataclasses.replace(
        config, **{k: change(getattr(config, k), **v) if isinstance(v, dict) else v for k, v in settings.items()}
    )
