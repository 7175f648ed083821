"""Output for terminals and files that know fewer characters than we print, like those of LC_ALL=C."""

from __future__ import annotations

import codecs
import io
import sys

_HANDLER = "kind_jax.plain"
_LIKE = {"²": "^2", "…": "..."}  # what our own sentences and tables use


def tolerate() -> None:
    """Let standard output and error write any text: a character that their encoding lacks becomes a few it has.

    Boxes and bars need nothing: rich draws them in ASCII by itself where the encoding is no UTF.
    """
    codecs.register_error(_HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not so in notebooks, which take everything
            stream.reconfigure(errors=_HANDLER)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    escaped = character.encode("ascii", "backslashreplace").decode()
    if "\udc80" <= character <= "\udcff":  # a byte of a file's name that is no text
        escaped = f"\\x{ord(character) - 0xDC00:02x}"
    return _LIKE.get(character, escaped), error.start + 1
