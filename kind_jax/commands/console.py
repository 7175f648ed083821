"""What commands have in common: options that are read early, class lists, printing where results lie."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

from kind_jax.classes import Typed
from kind_jax.commands.repeated import canonical
from kind_jax.commands.told import note_results, note_table
from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.train.loop import Summary

# The type of an option that takes classes; nothing at all is the empty tuple.
Classes = Annotated[tuple[str, ...], tyro.conf.arg(metavar="CLASS [CLASS ...]")]


def typed(option: str, texts: Sequence[str]) -> Typed | None:
    """What an option names, like ``3,7`` or ``0-4`` or ``flags,food``; None (all classes) where it was not given.

    Raises:
      UserError: an empty value, or more classes than any model has. What depends on the model's classes is refused when
        they are known.
    """
    return Typed(option, tuple(texts)) if texts else None


def chosen(classes: Typed | None, names: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers of the classes that were typed, in a model whose classes have ``names``; None stays None.

    Says so where a number that was typed is the name of another class.

    Raises:
      UserError: a class that the model does not know, or that is named twice.
    """
    if classes is None:
        return None
    if (remark := classes.remark(names)) is not None:
        print(f"note: {remark}", file=sys.stderr)
    return classes.among(names)


def option(args: Sequence[str], name: str) -> str | None:
    """The value of an option that must be known before the others can be parsed."""
    wanted, found = canonical(name), None
    for i, arg in enumerate(args):
        if canonical(arg) == wanted:
            if "=" in arg:
                found = arg.partition("=")[2]
            elif i + 1 < len(args):
                found = args[i + 1]
    return found


def check_png(out: Path | None, option: str = "--out") -> None:
    """Refuse a picture's path that does not end in .png, before any work is done."""
    if out is not None and out.suffix.lower() != ".png":
        raise UserError(f"{option} is {str(out)!r}, but it must end in .png.")
    check_file(out, option)


def check_file(out: Path | None, option: str = "--out") -> None:
    """Refuse a file that could not be written, before any work is done."""
    if out is None:
        return
    check_outside(out, option)
    if out.is_dir():
        raise UserError(f"{option} is {str(out)!r}, which is a folder, but it must be a file.")
    parent = next(p for p in out.absolute().parents if os.path.lexists(p))  # the missing ones will be made
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"{option} is {str(out)!r}, but {str(parent)!r} is no folder that can be written to.")


def check_outside(out: Path, option: str = "--out") -> None:
    """Refuse a place inside an artifact, which holds what its manifest lists and nothing else."""
    for folder in (out.absolute(), *out.absolute().parents):
        if (folder / "kind.json").is_file():
            raise UserError(f"{option} is {str(out)!r}, inside the artifact {str(folder)!r}; choose another place.")


def say_paths(headline: str, paths: Mapping[str, Path]) -> None:
    """A headline and a line for each result that exists."""
    note_results(headline, paths)
    print(headline)
    width = max(map(len, paths), default=0)
    for name, path in paths.items():
        if path.exists():
            print(f"  {name:<{width}}  {path}")


def say_run(summary: Summary, steps: int) -> int:
    """How a training run ended, and where everything lies; returns its exit code. One host of several says it."""
    from kind_jax.train import hosts
    from kind_jax.train.ending import EXIT_RESTARTABLE

    if hosts.is_first():
        print(f"waits: {summary.waits}")
        state = "finished" if summary.step >= steps else "stopped"
        names = {"checkpoints": "checkpoints", "metrics": "metrics.jsonl", "samples": "samples", "best": "best"}
        say_paths(
            f"{state} at step {summary.step} of {steps} after {summary.seconds:.0f} s",
            {name: summary.directory / file for name, file in (names | {"config": "config.json"}).items()},
        )
    return EXIT_RESTARTABLE if summary.interrupted else 0


def table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table; the first column is text, the others are figures."""
    note_table(title, header, rows)
    grid = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        grid.add_column(name, justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        grid.add_row(*row)
    console = Console()
    # A file or a pipe has no width of its own; rich's 80 columns would cut names short.
    (console if console.is_terminal else Console(width=160)).print(grid)
