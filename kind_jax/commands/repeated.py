"""Options that are given more than once: lists add up, and a single value is refused where the two differ.

The parser keeps the last. This is done to the arguments before any verb sees them, so all verbs are alike.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from kind_jax.config import RunConfig
from kind_jax.errors import UserError
from kind_jax.kinds import config_classes

_NUMBER = re.compile(r"-(\.|[0-9]|inf\b|nan\b|infinity\b)", re.IGNORECASE)  # as the parser sees it


@dataclasses.dataclass(frozen=True)
class _Option:
    """An option of a verb.

    Attributes:
      name: without the dashes before it.
      kind: how many values it has: none, one, a fixed number of them, any number, or one and more.
    """

    name: str
    kind: Literal["flag", "one", "fixed", "list", "some"]


@dataclasses.dataclass(frozen=True)
class _Given:
    """One occurrence: arguments ``start`` to ``stop``."""

    option: _Option
    values: tuple[str, ...]
    start: int
    stop: int


def canonical(argument: str) -> str | None:
    """The name of an option however it is written: ``--a_b=x`` and ``--a-b`` are ``a-b``; None for a value."""
    if not argument.startswith("--") or argument == "--":
        return None
    return argument[2:].partition("=")[0].replace("_", "-")


def joined(arguments: type, args: Sequence[str]) -> list[str]:
    """``args`` with every option once.

    Args:
      arguments: the dataclass that they will be parsed as.

    Raises:
      UserError: an option that takes one value has two different ones, or one that takes a list has none at all.
    """
    given: dict[str, list[_Given]] = {}
    for each in _given(_options(arguments), args):
        given.setdefault(each.option.name, []).append(each)
    gone, put = set[int](), dict[int, list[str]]()
    for name, all_of_it in given.items():
        option, last = all_of_it[0].option, all_of_it[-1]
        if option.kind == "some" and not all(each.values for each in all_of_it):
            raise UserError(f"--{name} is given without a value, but it must have one or more.")
        if len(all_of_it) == 1:
            continue
        if option.kind not in ("list", "some"):
            _check_same(all_of_it)
            put[last.start] = list(args[all_of_it[0].start : all_of_it[0].stop])
        else:
            values = [value for each in all_of_it for value in each.values]
            put[last.start] = [f"--{name}={values[0]}", *values[1:]] if values else [f"--{name}"]
        gone |= {i for each in all_of_it for i in range(each.start, each.stop)}
    return [arg for i, old in enumerate(args) for arg in put.get(i, [] if i in gone else [old])]


def values_of(arguments: type, args: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The values that ``args``, in which every option is there once, give to each option, by its name with ``-``.

    That of a flag is True or False.
    """
    return {each.option.name: each.values for each in _given(_options(arguments), args)}


def without_positionals(arguments: type, args: Sequence[str]) -> list[str]:
    """The options in ``args`` with their values, as they were typed, and nothing else."""
    return [arg for each in _given(_options(arguments), args) for arg in args[each.start : each.stop]]


def _check_same(given: Sequence[_Given]) -> None:
    name, first = given[0].option.name, given[0].values
    for other in given[1:]:
        if other.values != first:
            values = " and ".join(repr(" ".join(v))[:100] for v in (first, other.values))
            raise UserError(f"--{name} is given twice, as {values}, but it must be given once.")


def _given(options: dict[str, tuple[_Option, bool]], args: Sequence[str]) -> list[_Given]:
    """Every option in ``args`` that is known, with the values that follow it."""
    found, at = [], 0
    while at < len(args) and args[at] != "--":
        start, at = at, at + 1
        name = canonical(args[start])
        if name not in options:
            continue
        option, on = options[name]
        values = [args[start].partition("=")[2]] if "=" in args[start] else []
        if option.kind == "flag":
            values.append(str(on))
        elif option.kind != "one" or not values:
            stop = at + 1 if option.kind == "one" else len(args)
            while at < min(stop, len(args)) and not _is_option(args[at]):
                values.append(args[at])
                at += 1
        found.append(_Given(option, tuple(values), start, at))
    return found


def _is_option(argument: str) -> bool:
    return argument.startswith("-") and len(argument) > 1 and not _NUMBER.match(argument)


def _options(arguments: type, prefix: str = "", around: tuple[type, ...] = ()) -> dict[str, tuple[_Option, bool]]:
    """Options of a dataclass and of those inside it by all their names, and what a flag of that name means.

    ``around``: the dataclasses that it is inside of; one that may hold others of its own kind is gone into once.
    """
    found = {}
    for name, hint in typing.get_type_hints(arguments, include_extras=True).items():
        hint, *extras = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        if tyro.conf.Positional in (hint, *extras):
            continue
        named = next((e.name for e in extras if getattr(e, "name", None) is not None), name)
        path = f"{prefix}{named}".replace("_", "-")
        if inside := dataclasses_of(hint):
            for each in inside:
                if each not in around:
                    found |= _options(each, f"{path}." if named else prefix, (*around, each))
            continue
        option = _Option(path, _kind(hint, own=not prefix))
        found[path] = option, True
        if option.kind == "flag":
            parent, dot, last = path.rpartition(".")
            found[f"{parent}{dot}no-{last}"] = option, False
    return found


def dataclasses_of(hint: Any) -> list[type]:
    """The dataclasses that a field may hold; the settings of a run are those of any kind of run."""
    if hint is RunConfig:
        return config_classes()
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    parts = typing.get_args(hint) if is_union else (hint,)
    return list(parts) if all(dataclasses.is_dataclass(part) for part in parts) else []


def _kind(hint: Any, *, own: bool) -> Literal["flag", "one", "fixed", "list", "some"]:
    if hint is bool:
        return "flag"
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    for part in typing.get_args(hint) if is_union else (hint,):
        if typing.get_origin(part) is tuple:
            inner = typing.get_args(part)
            if inner[-1] is not Ellipsis:
                return "fixed"
            return "some" if own and inner[0] in (str, Path) else "list"
    return "one"
