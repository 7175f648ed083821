"""``kind-jax shrink``: remove classes from a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.classes import Typed, describe
from kind_jax.commands.console import Classes, chosen, say_paths
from kind_jax.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write an artifact without the tailors of some classes; the others keep their numbers."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    drop: Classes
    """Classes to remove by number, range or name, like 3,5 or 0-4 or cat,dog. What reads as a number is a number, also
    where it is another class's name."""
    out: Path
    """Folder to write; it must not exist yet."""
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights of a run; default: the moving average, or what the artifact holds."""
    replace: bool = False
    """Replace an artifact that exists at --out."""


def run(args: list[str]) -> int:
    """Parse ``args``, shrink and write; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax shrink")
    asked = Typed("--drop", parsed.drop)

    from kind_jax.deploy.bundle import export, open_bundle
    from kind_jax.deploy.groups import drop

    bundle = open_bundle(parsed.source, weights=parsed.weights, kind=Config)
    shrunk = drop(bundle, chosen(asked, bundle.class_names) or ())
    export(shrunk, parsed.out, replace=parsed.replace)
    say_paths(f"classes that are left: {describe(shrunk.served, shrunk.class_names)}", {"artifact": parsed.out})
    return 0
