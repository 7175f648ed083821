"""Telling weights apart: two models share their learngenes if and only if the fingerprints are equal.

A file of tailors says in its metadata whose it is (:class:`Owner`), so that it is known without its manifest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from kind_jax.config.check import STRICT, problem
from kind_jax.errors import UserError
from kind_jax.partition import fingerprint
from kind_jax.untrusted import documents
from kind_jax.untrusted.text import printable

_KEY = "kind_jax"  # one entry for everything: the library writes several in random order


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose tailors a file holds.

    Attributes:
      group: its number.
      classes: names of the classes of the group, in the order of their numbers.
      learngenes: fingerprint of the learngenes that the tailors were trained with.
    """

    __pydantic_config__ = STRICT
    group: pydantic.NonNegativeInt
    classes: tuple[str, ...]
    learngenes: str

    def __str__(self) -> str:
        shown = ", ".join(repr(printable(name, 40)) for name in self.classes[:5])
        names = f"{shown}, …" if len(self.classes) > 5 else shown
        return f"group {self.group} ({names}) of a model whose learngenes have SHA-256 {printable(self.learngenes, 12)}"


def owners(
    class_names: Sequence[str], group_of_class: Sequence[int], learngenes: Mapping[str, Any]
) -> dict[int, Owner]:
    """Whose the tailors of every group are, by the group's number.

    Args:
      learngenes: the model's, as a tree of arrays.
    """
    names: dict[int, list[str]] = {}
    for name, group in zip(class_names, group_of_class, strict=True):
        names.setdefault(group, []).append(name)
    found = fingerprint(learngenes)
    return {group: Owner(group=group, classes=tuple(own), learngenes=found) for group, own in names.items()}


_OWNER = pydantic.TypeAdapter(Owner)


def to_metadata(owner: Owner) -> dict[str, str]:
    """The owner as metadata of a safetensors file; the same bytes for the same owner."""
    return {_KEY: _OWNER.dump_json(owner).decode()}


def from_metadata(metadata: Mapping[str, str], origin: object) -> Owner | None:
    """The owner in the metadata of a file; None where an older version wrote it, without one.

    Raises:
      UserError: there is something else; ``origin`` is named.
    """
    if _KEY not in metadata:
        return None
    text = metadata[_KEY]
    documents.parse(text.encode(errors="surrogatepass"), f"The metadata of {origin}")
    try:
        return _OWNER.validate_json(text)
    except pydantic.ValidationError as e:
        raise UserError(f"The metadata of {origin} is damaged: {problem(e)}.") from e
