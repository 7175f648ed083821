"""``kind-jax compose`` of a classifier: the plain one that serves a superclass."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import say_paths, table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write the classifier that serves one superclass of a gated one: exact, without its gate and its other classes."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    superclass: int
    """Number of the group of classes that it tells apart."""
    out: Path
    """Folder to write; it must not exist yet."""
    form: Literal["dense", "factored"] = "dense"
    """dense: a plain vision transformer, which kind-jax export --to timm takes; factored: the tailors join the
    learngenes as more components."""
    weights: Literal["ema", "raw", "best"] | None = None
    """Moving average, last weights, or those with the best held-out accuracy of a run; default: the moving average."""
    replace: bool = False
    """Replace the artifact at --out."""


def run(args: list[str]) -> int:
    """Parse ``args`` and write the model; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax compose")

    import jax

    from kind_jax.classifying.compose import serve
    from kind_jax.classifying.config import ClassifyRun
    from kind_jax.classifying.cost import forward
    from kind_jax.deploy.bundle import export, open_bundle

    bundle = open_bundle(parsed.source, weights=parsed.weights, kind=ClassifyRun)
    composed = serve(bundle, parsed.superclass, form=parsed.form)
    export(composed, parsed.out, replace=parsed.replace)
    rows = []
    for name, model in (("gated, all superclasses aboard", bundle), (f"superclass {parsed.superclass}", composed)):
        size = sum(leaf.size for leaf in jax.tree.leaves(model.collections))
        rows.append((name, f"{size:,}", f"{forward(model.config.model) / 1e6:,.2f}"))
    table("model", ("", "parameters", "MFLOPs an image"), rows)
    print(f"classes: {', '.join(composed.class_names)}")
    say_paths("composed", {"artifact": parsed.out})
    return 0
