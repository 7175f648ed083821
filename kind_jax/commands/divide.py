"""``kind-jax divide``: cut a finished model into modules."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import check_outside, say_paths, table
from kind_jax.config import RunConfig
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Cut a model into modules of consecutive blocks, each an artifact; `kind-jax assemble` puts them together again,
    bit for bit."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact of a vision transformer, a ResNet or a diffusion transformer."""
    depths: tuple[int, ...]
    """Blocks of each module, in order, like 6 6 6 6; of a ResNet, those of its stages."""
    out: Path
    """Folder for the artifacts module-0, module-1, ...; it must not exist yet."""
    weights: Literal["ema", "raw", "best"] | None = None
    """Moving average, last weights, or (of a classifier) the best ones of a run; default: the moving average."""


def run(args: list[str]) -> int:
    """Parse ``args`` and write the modules; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax divide")
    check_outside(parsed.out)
    if parsed.out.exists():
        raise UserError(f"--out is {str(parsed.out)!r}, which exists, but it must be a new folder.")

    import jax

    from kind_jax.assembling import project
    from kind_jax.assembling.bundles import divide_bundle
    from kind_jax.deploy.bundle import export, open_bundle
    from kind_jax.files import atomic_directory

    bundle = open_bundle(parsed.source, weights=parsed.weights, kind=RunConfig)
    parts = divide_bundle(bundle, parsed.depths)
    rows = []
    with atomic_directory(parsed.out) as folder:  # all of them or none
        for i, part in enumerate(parts):
            name, size = project.name(i, len(parts)), sum(a.size for a in jax.tree.leaves(part.collections))
            export(part, folder / name)
            rows.append((name, str(part.config.module.depths[i]), f"{size:,}"))
    table(f"{parsed.source} in {len(parts)} modules", ("module", "blocks", "parameters"), rows)
    say_paths("divided", {"modules": parsed.out})
    return 0
