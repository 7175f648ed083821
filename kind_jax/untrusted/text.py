"""Text from files on its way to a terminal, where control characters would be commands."""

from __future__ import annotations

from collections.abc import Sequence

from kind_jax.errors import UserError

NAME_LIMIT = 200  # characters


def printable(text: object, limit: int = NAME_LIMIT) -> str:
    """``text`` in one line of at most about ``limit`` characters, whatever does not print written as an escape."""
    found = str(text)
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in found[:limit])
    return line if len(found) <= limit else f"{line}…"


def short(value: object, limit: int = 100) -> str:
    """What a value is, in one line, for a sentence that refuses it."""
    line = " ".join(repr(value).split())  # an array's has lines
    return line if len(line) <= limit else f"{line[:limit]}…"


def check_names(names: Sequence[str], origin: object) -> None:
    """Refuse names of classes that would not print in one line.

    Raises:
      UserError: naming ``origin`` and the first name that is empty, too long, or has characters that do not print.
    """
    for name in names:
        if not (name.strip() and name.isprintable() and len(name) <= NAME_LIMIT):
            raise UserError(
                f"{origin} has the class name {printable(name, 40)!r}, but a name must be 1 to {NAME_LIMIT} printable "
                "characters."
            )
