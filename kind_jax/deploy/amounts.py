"""Numbers of parameters and FLOPs as people write them."""

from __future__ import annotations

from kind_jax.errors import UserError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def amount(setting: str, text: str) -> int:
    """What a text like ``12345``, ``200k``, ``2M`` or ``1.5G`` means.

    Raises:
      UserError: it is no such number, or not positive; ``setting`` is what it was given for.
    """
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    try:
        value = float(number) * _UNITS[unit]
        if not 1 <= value < 1e18:
            raise ValueError
    except (ValueError, KeyError):
        raise UserError(
            f"{setting} is {text!r:.200}, but it must be a positive number like 12345, 200k, 2M or 1.5G."
        ) from None
    return int(value)
