"""JSON of strangers: what one parser reads differently from another, or chokes on, is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from kind_jax.errors import UserError
from kind_jax.untrusted.regular import read_small
from kind_jax.untrusted.text import printable

VALUES = 10_000_000  # in one document; each takes up to a hundred times its text in memory
_DIGITS = 100


class _RefusedError(ValueError):
    """Grammatical, but not accepted."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise _RefusedError(f"it has the key '{printable(twice, 60)}' twice in one object")
    return found


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise _RefusedError(f"it has an integer of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise _RefusedError(f"it has the number {text[:20]}, which is not finite")
    return value


def _constant(text: str) -> NoReturn:
    raise _RefusedError(f"it has {text}, which is no JSON")


def parse(data: bytes, origin: object) -> Any:
    """The value that JSON ``data`` stands for; a key is at most once in an object, and every number is finite.

    Raises:
      UserError: not UTF-8, not JSON, nested too deeply, too many values; ``origin`` is named.
    """
    try:
        if data.count(b",") > VALUES:
            raise _RefusedError(f"it has more than {VALUES} values")
        text = data.decode()
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
        if "\\u" in text:  # half of a surrogate pair is a character that cannot be written anywhere
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as e:
        raise UserError(f"{origin} is damaged: it is nested too deeply.") from e
    except UnicodeError as e:
        raise UserError(f"{origin} is damaged: it is not UTF-8.") from e
    except json.JSONDecodeError as e:
        raise UserError(f"{origin} is damaged: it is not JSON ({e}).") from e
    except _RefusedError as e:
        raise UserError(f"{origin} is damaged: {e}.") from e
    return value


def read(path: Path, limit: int = 16 << 20) -> Any:
    """The value in a JSON file of at most ``limit`` bytes.

    Raises:
      UserError: as :func:`parse`, or there is no such file, or it is no regular file.
    """
    return parse(read_small(path, limit), path)
