"""``kind-jax shrink``: remove classes from a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import parse_classes, say_paths
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write an artifact without the tailors of some classes; the others keep their numbers."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    drop: str
    """Classes like 3,5 or 0-4 to remove."""
    out: Path
    """Folder to write; it must not exist yet."""
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights of a run; default: the moving average, or what the artifact holds."""
    replace: bool = False
    """Replace an artifact that exists at --out."""


def run(args: list[str]) -> int:
    """Parse ``args``, shrink and write; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax shrink")
    try:
        classes = parse_classes(parsed.drop) or ()
    except UserError as e:
        raise UserError(str(e).replace("--classes", "--drop")) from None

    from kind_jax.deploy.bundle import export, open_bundle
    from kind_jax.deploy.groups import drop, served

    shrunk = drop(open_bundle(parsed.source, weights=parsed.weights), classes)
    export(shrunk, parsed.out, replace=parsed.replace)
    left = ", ".join(f"{c} {shrunk.class_names[c]}" for c in served(shrunk))
    say_paths(f"classes that are left: {left}", {"artifact": parsed.out})
    return 0
