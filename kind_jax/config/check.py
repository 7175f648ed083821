"""What every settings class uses: strict reading of saved configs, and refusals that name the field."""

from __future__ import annotations

import pydantic

from kind_jax.errors import UserError

# A saved config is data: an unknown field or a string where a number belongs is an error, not something to coerce.
STRICT = pydantic.ConfigDict(extra="forbid", strict=True)


def require(condition: bool, field: str, found: object, wanted: str) -> None:
    """Raise a UserError naming the field, the value found and the value wanted, unless ``condition`` holds."""
    if not condition:
        raise UserError(f"{field} is {found!r}, but it must be {wanted}.")
