"""Which classes are meant: by number, by name, or as somebody typed them.

In Python the type decides: an int is a number, a str is a name, also the str ``"7"``. On a command line all is text, so
what reads as a number or as a range of numbers is one, and everything else is a name.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from kind_jax.config.check import is_whole
from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable

_RANGE = re.compile(r"([0-9]{1,100})\s*-\s*([0-9]{1,100})\Z")
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,99})\Z")
_MOST = 1_000_000  # classes that one option may name
_SHOWN = 20


def number_of(value: object, names: Sequence[str], setting: str = "class") -> int:
    """The number of the class that an int or a name stands for.

    Args:
      names: of all classes that the model knows, in the order of their numbers.
      setting: what a refusal calls the value.

    Raises:
      UserError: neither an int nor a str, a number beyond the classes, or a name of no class or of several.
    """
    if isinstance(value, str):
        return _named(value, names, setting)
    if not is_whole(value):
        raise UserError(f"{setting} is {value!r:.200}, but it must be the number or the name of a class.")
    number = int(value)
    if not 0 <= number < len(names):
        raise UserError(
            f"{setting} is {_short(number)}, but it must be between 0 and {len(names) - 1}{_hint(number, names)}."
        )
    return number


def numbers_of(values: object, names: Sequence[str], setting: str = "classes") -> tuple[int, ...]:
    """The numbers of a list of classes, in its order.

    Raises:
      UserError: no list, an empty one, or one that names a class twice or something else than classes.
    """
    if isinstance(values, Typed):
        return values.among(names)
    found = tuple(number_of(value, names) for value in _listed(values, setting))
    if twice := sorted({n for n in found if found.count(n) > 1}) if len(set(found)) < len(found) else []:
        raise UserError(
            f"{setting} names class {twice[0]} ({printable(names[twice[0]])}) twice, but it must do so once."
        )
    return found


def labels_of(labels: object, names: Sequence[str], setting: str = "labels") -> Int32[np.ndarray, " N"]:
    """A class for each image as int32; a class may come several times.

    Raises:
      UserError: no list or one-dimensional array of class numbers or names, or an empty one.
    """
    values = _listed(labels, setting)
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        for edge in (values.min(), values.max()):
            number_of(edge, names)
        return values.astype(np.int32)
    return np.array([number_of(value, names) for value in values], np.int32)


def _listed(values: Any, setting: str) -> Sequence[Any] | np.ndarray:
    wanted = "a list of class numbers or names, like [3, 7]"
    listed = isinstance(values, Collection) and not isinstance(values, str | bytes | Mapping)
    if not (listed or hasattr(values, "dtype")):
        raise UserError(f"{setting} is {values!r:.200}, but it must be {wanted}.")
    if hasattr(values, "dtype"):
        values = np.asarray(values)
        if values.ndim != 1 or values.dtype.kind not in "iuUO":
            found = f"an array of {values.dtype.name} and shape {values.shape}"
            raise UserError(f"{setting} is {found}, but it must be {wanted}, or an array of ints with one dimension.")
    if not len(values):
        raise UserError(f"{setting} is empty, but it must name at least one class.")
    return values if isinstance(values, np.ndarray) else list(values)


def _named(name: str, names: Sequence[str], setting: str) -> int:
    found = [number for number, other in enumerate(names) if other == name]
    if len(found) == 1:
        return found[0]
    shown = f"{setting} is {printable(name, 100)!r}"
    if found:
        raise UserError(f"{shown}, the name of the classes {readable(found)}, so it must be one of these numbers.")
    if len(names) <= _SHOWN:
        there = f"the classes are {describe(range(len(names)), names)}"
    else:
        close = difflib.get_close_matches(name[:200], names, 3)
        there = f"there are {len(names)} classes" + (f", of similar names {readable(close)}" if close else "")
    raise UserError(f"{shown}, but no class has this name: {printable(there, 1000)}.")


def _hint(number: int, names: Sequence[str]) -> str:
    """For models whose names are numbers, but others than theirs."""
    name = str(number) if number < 10**18 else ""
    return f" (the class that is named {name!r} has the number {names.index(name)})" if name in names else ""


def _short(number: int) -> str:
    return str(number) if abs(number) < 10**18 else "a number of more than 18 digits"


@dataclasses.dataclass(frozen=True)
class Typed:
    """Classes as a command line names them, like ``3,7`` or ``0-4`` or ``flags,food``; several texts add up.

    Names may have commas, dashes and digits in them: the longest name that fits is taken. A name that itself reads as a
    number or a range cannot be typed, but its number can. ``007`` is no number, but a name.

    Attributes:
      option: that they were given to.
      texts: its values, in order.

    Raises:
      UserError: no value, an empty one, or more classes than any model has.
    """

    option: str
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.texts:
            raise UserError(f"{self.option} is given without a value, but it must be {_WANTED}.")
        for text in self.texts:
            for part in text.split(","):
                if not part.strip():
                    raise UserError(f"{self.option} is {text!r:.200}, but it must be {_WANTED}.")
                span = _RANGE.match(part.strip())
                if span and int(span[2]) - int(span[1]) >= _MOST:
                    raise UserError(f"{self.option} is {text!r:.200}, which names more classes than any model has.")

    def among(self, names: Sequence[str]) -> tuple[int, ...]:
        """The numbers of these classes in a model whose classes have ``names``, in the order given.

        Raises:
          UserError: what is neither a number, nor a range, nor a name of the model's; a class that is named twice.
        """
        most = 1 + max((name.count(",") for name in names), default=0)
        found: list[int] = []
        for text in self.texts:
            parts = text.split(",")
            while parts:
                taken, numbers = self._first(parts, names, most)
                found += numbers
                del parts[:taken]
        if len(set(found)) != len(found):
            shown = " ".join(self.texts)
            raise UserError(f"{self.option} is {shown!r:.200}, but it must name each class once.")
        return tuple(found)

    def remark(self, names: Sequence[str]) -> str | None:
        """What should be said where a number that was typed is also the name of another class; None for nothing."""
        self.among(names)
        for part in (part.strip() for text in self.texts for part in text.split(",")):
            if part not in names or not (_NUMBER.match(part) or _RANGE.match(part)):
                continue
            _, numbers = self._first([part], names, 1)
            own = names.index(part)
            if list(numbers) != [own]:
                meant = f"is class number {numbers[0]}, which is named {names[numbers[0]]!r}"
                if len(numbers) > 1:
                    meant = "stands for the classes of these numbers"
                return f"{self.option} {part} {meant}; the class that is named {part!r} has the number {own}"
        return None

    def _first(self, parts: Sequence[str], names: Sequence[str], most: int) -> tuple[int, Sequence[int]]:
        """How many of the parts between commas belong together at the beginning, and the classes that they name."""
        for taken in range(min(most, len(parts)), 1, -1):
            if (name := ",".join(parts[:taken]).strip()) in names:
                return taken, [_named(name, names, self.option)]
        part = parts[0].strip()
        span = _RANGE.match(part)
        if span and (int(span[1]) <= int(span[2])):
            edges = (number_of(int(edge), names, f"a class of {self.option}") for edge in span.groups())
            return 1, range(next(edges), next(edges) + 1)
        if _NUMBER.match(part):
            return 1, [number_of(int(part), names, f"a class of {self.option}")]
        return 1, [_named(part, names, f"a class of {self.option}")]


_WANTED = "classes by number or name, like 3,7 or 0-4 or cat,dog"

ClassList = Sequence[int | str] | Int32[np.ndarray, " n"] | Typed


def describe(numbers: Sequence[int], names: Sequence[str]) -> str:
    """Classes for a sentence, like ``7 and 8`` where these are their names too, or ``10 bear and 11 bird``."""

    def one(number: int) -> str:
        name = names[number]
        if name == str(number):
            return name
        return f"{number} (named {name})" if name.isdecimal() else f"{number} {name}"

    shown = [one(n) for n in numbers[:_SHOWN]]
    return readable(shown if len(numbers) <= _SHOWN else [*shown, f"{len(numbers) - _SHOWN} more"])


def mismatch(theirs: Sequence[str], data: Sequence[str]) -> str | None:
    """Where the classes of a model are not those of the data, in words; None where they are."""
    theirs, data = tuple(theirs), tuple(data)
    if theirs == data:
        return None
    if len(theirs) != len(data):
        return f"it has {len(theirs)} and the data {len(data)}"
    i = next(i for i, pair in enumerate(zip(theirs, data, strict=True)) if pair[0] != pair[1])
    order = ", the same ones in another order" if sorted(theirs) == sorted(data) else ""
    return f"class {i} is {printable(theirs[i], 60)!r} there and {printable(data[i], 60)!r} in the data{order}"


def readable(items: Sequence[object]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last
