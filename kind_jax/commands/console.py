"""What commands have in common: reading class lists, printing where results lie."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.deploy.bundle import Bundle


def parse_classes(text: str | None) -> tuple[int, ...] | None:
    """``3,7`` or ``0-4,9`` as class labels in the order given; None stays None (all classes).

    Raises:
      UserError: anything else, or a class named twice.
    """
    if text is None:
        return None
    shown = f"{text!r:.200}"
    classes: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = (first, last) if dash else (first,)
        if not all(n.isdecimal() and len(n) <= 100 for n in numbers) or int(numbers[-1]) < int(first):
            raise UserError(f"--classes is {shown}, but it must be class numbers like 3,7 or 0-4,9.")
        if int(numbers[-1]) - int(first) >= 1_000_000:
            raise UserError(f"--classes is {shown}, which names more classes than any model has.")
        classes += range(int(first), int(last) + 1) if dash else [int(first)]
    if len(set(classes)) != len(classes):
        raise UserError(f"--classes is {shown}, but it must name each class once.")
    return tuple(classes)


def option(args: list[str], name: str) -> str | None:
    """The value of an option that must be known before the others can be parsed."""
    found = None
    for i, arg in enumerate(args):
        if arg == name and i + 1 < len(args):
            found = args[i + 1]
        elif arg.startswith(f"{name}="):
            found = arg.removeprefix(f"{name}=")
    return found  # the last one, as the parser has it


def check_png(out: Path | None, option: str = "--out") -> None:
    """Refuse a picture's path that does not end in .png, before any work is done."""
    if out is not None and out.suffix.lower() != ".png":
        raise UserError(f"{option} is {str(out)!r}, but it must end in .png.")
    check_file(out, option)


def check_file(out: Path | None, option: str = "--out") -> None:
    """Refuse a file that could not be written, before any work is done."""
    if out is None:
        return
    if out.is_dir():
        raise UserError(f"{option} is {str(out)!r}, which is a folder, but it must be a file.")
    parent = next(p for p in out.absolute().parents if os.path.lexists(p))  # the missing ones will be made
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"{option} is {str(out)!r}, but {str(parent)!r} is no folder that can be written to.")


def say_paths(headline: str, paths: Mapping[str, Path]) -> None:
    """A headline and a line for each result that exists."""
    print(headline)
    width = max(map(len, paths), default=0)
    for name, path in paths.items():
        if path.exists():
            print(f"  {name:<{width}}  {path}")


def table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table; the first column is text, the others are figures."""
    grid = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        grid.add_column(name, justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        grid.add_row(*row)
    console = Console()
    # A file or a pipe has no width of its own; rich's 80 columns would cut names short.
    (console if console.is_terminal else Console(width=160)).print(grid)


def with_data(bundle: Bundle, path: Path | None) -> Bundle:
    """``bundle`` whose data set is in ``path`` (``data.path``); None leaves it where the config says."""
    if path is None:
        return bundle
    data = dataclasses.replace(bundle.config.data, path=str(path))
    return dataclasses.replace(bundle, config=dataclasses.replace(bundle.config, data=data))
