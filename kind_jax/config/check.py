"""What every settings class uses: strict reading, refusals that name the field, and changes of nested fields."""

from __future__ import annotations

import dataclasses
import numbers
import typing
from typing import Any, TypeGuard

import pydantic

from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable

# A saved config is data: an unknown field or a string where a number belongs is an error, not something to coerce.
STRICT = pydantic.ConfigDict(extra="forbid", strict=True)


def require(condition: bool, field: str, found: object, wanted: str) -> None:
    """Raise a UserError naming the field, the value found and the value wanted, unless ``condition`` holds."""
    if not condition:
        value = repr(found)
        raise UserError(f"{field} is {value if len(value) <= 200 else f'{value[:200]}…'}, but it must be {wanted}.")


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
