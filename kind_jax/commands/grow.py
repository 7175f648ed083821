"""``kind-jax grow``: add classes to a model whose learngenes stay as they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import say_paths
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write an artifact that serves the classes of SOURCE and new ones behind them."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    out: Path
    """Folder to write; it must not exist yet."""
    add: Path | None = None
    """A run or an artifact with the same learngenes and dense parameters, whose classes to add."""
    fresh: str | None = None
    """Names like cat,dog of classes to add with untrained tailors."""
    seed: int = 0
    """Seed of untrained tailors."""
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights of runs; default: the moving average, or what the artifact holds."""
    replace: bool = False
    """Replace an artifact that exists at --out."""


def run(args: list[str]) -> int:
    """Parse ``args``, grow and write; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax grow")
    if (parsed.add is None) == (parsed.fresh is None):
        raise UserError("either --add or --fresh must be given, one of the two.")
    if not 0 <= parsed.seed < 2**32:
        raise UserError(f"--seed is {parsed.seed}, but it must be between 0 and {2**32 - 1}.")
    names = [] if parsed.fresh is None else [name.strip() for name in parsed.fresh.split(",")]
    if not all(names):
        raise UserError(f"--fresh is {parsed.fresh!r}, but it must be class names like cat,dog.")

    from kind_jax.deploy.bundle import export, open_bundle
    from kind_jax.deploy.groups import grow, grow_fresh

    bundle = open_bundle(parsed.source, weights=parsed.weights)
    if parsed.add is not None:
        grown = grow(bundle, open_bundle(parsed.add, weights=parsed.weights))
    else:
        grown = grow_fresh(bundle, names, parsed.seed)
    export(grown, parsed.out, replace=parsed.replace)
    old = len(bundle.class_names)
    new = ", ".join(f"{old + i} {name}" for i, name in enumerate(grown.class_names[old:]))
    say_paths(f"added {new}; the {old} classes before keep their numbers", {"artifact": parsed.out})
    return 0
