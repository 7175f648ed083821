"""``kind-jax export``: write a run as an artifact that can be shared and fetched in parts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import parse_classes, say_paths, table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write learngenes, dense parameters and one file of tailors per group as safetensors, with a manifest."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run, or an artifact to take classes out of."""
    out: Path
    """Folder to write; it must not exist yet."""
    classes: str | None = None
    """Classes like 3,7 whose tailors to include; default: all."""
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights of a run; default: the moving average, or what the artifact holds."""
    replace: bool = False
    """Replace an artifact that exists at --out."""


def run(args: list[str]) -> int:
    """Parse ``args`` and write the artifact; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax export")
    classes = parse_classes(parsed.classes)

    from kind_jax.deploy.bundle import export, open_bundle

    bundle = open_bundle(parsed.source, classes=classes, weights=parsed.weights)
    manifest = export(bundle, parsed.out, replace=parsed.replace)
    rows = [
        (name, f"{info['bytes']:,}", str(len(info["arrays"])), info["sha256"][:12])
        for name, info in manifest["files"].items()
    ]
    table(f"{parsed.out} (step {bundle.step}, {bundle.weights} weights)", ("file", "bytes", "arrays", "SHA-256"), rows)
    say_paths("exported", {"artifact": parsed.out})
    return 0
