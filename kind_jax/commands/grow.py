"""``kind-jax grow``: add classes to a model whose learngenes stay as they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.classes import describe
from kind_jax.commands.console import say_paths
from kind_jax.config import Config
from kind_jax.config.check import check_seed
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write an artifact that serves the classes of SOURCE and new ones behind them."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    out: Path
    """Folder to write; it must not exist yet."""
    add: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")] = ()
    """Runs or artifacts with the same learngenes and dense parameters, whose classes to add, in this order."""
    fresh: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()
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
    if bool(parsed.add) == bool(parsed.fresh):
        raise UserError("either --add or --fresh must be given, one of the two.")
    check_seed(parsed.seed, "--seed")
    names = [name.strip() for text in parsed.fresh for name in text.split(",")]
    if not all(names):
        raise UserError(f"--fresh is {' '.join(parsed.fresh)!r}, but it must be class names like cat,dog.")

    from kind_jax.deploy.bundle import export, open_bundle
    from kind_jax.deploy.groups import grow, grow_fresh

    bundle = open_bundle(parsed.source, weights=parsed.weights, kind=Config)
    grown = grow_fresh(bundle, names, parsed.seed) if names else bundle
    for other in parsed.add:
        grown = grow(grown, open_bundle(other, weights=parsed.weights, kind=Config))
    export(grown, parsed.out, replace=parsed.replace)
    old = len(bundle.class_names)
    new = range(old, len(grown.class_names))
    added = f"added {'classes' if len(new) > 1 else 'class'} {describe(new, grown.class_names)}"
    say_paths(f"{added}; the {old} classes before keep their numbers", {"artifact": parsed.out})
    return 0
