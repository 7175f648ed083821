"""``kind-jax merge``: several generators become one that serves the classes of all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from kind_jax.classes import describe
from kind_jax.commands.console import check_file, check_outside, check_png, say_paths, table
from kind_jax.config import Config, Projection
from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.deploy.bundle import Bundle
    from kind_jax.merging.generators import Merged


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Merge generators of the same sizes, each with classes of its own, into one that serves all of them. Models with
    the same learngenes and dense parameters are joined exactly; of others, the projections are decomposed together."""

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH PATH [PATH ...]")]
    """Runs or artifacts: KIND, composed or dense."""
    out: Path
    """Folder to write; it must not exist yet."""
    learngenes: str | None = None
    """Components that all classes share in each projection, a number, or full for its rank; default: what the models
    have, if they agree."""
    tailors: int | None = None
    """Components of each group of classes in each projection; default: what the models have, if they agree."""
    projections: tuple[Projection, ...] = ()
    """Those to decompose; default: what is factored in some model, or qkv o mlp_in mlp_out. Others become the mean."""
    align: Literal["weights", "none"] = "weights"
    """Put the hidden units of the other models in the order that suits the first one's weights best, or take them as
    they are. It makes a difference for models that do not come from one initialisation."""
    method: Literal["auto", "exact", "joint", "average"] = "auto"
    """exact: only join, or refuse; joint: decompose; average: the mean of what is always on, beside each group's
    tailors as they are; auto: exact where that is possible and no number or projection is given, or else joint."""
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights of runs; default: the moving average, or what the artifact holds."""
    plot: Path | None = None
    """PNG file of the plot; default: <out>_merge.png beside the artifact. The record goes to a file beside it that ends
    in _merge.json."""
    replace: bool = False
    """Replace an artifact that exists at --out, and the record and plot beside it."""


def run(args: list[str]) -> int:
    """Parse ``args``, merge and write; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax merge")
    plot = parsed.plot or parsed.out.parent / f"{parsed.out.name}_merge.png"
    report = plot.with_name(f"{plot.stem.removesuffix('_merge')}_merge.json")
    learngenes = _learngenes(parsed.learngenes)
    if parsed.tailors is not None and parsed.tailors < 1:
        raise UserError(f"--tailors is {parsed.tailors}, but it must be 1 or more.")
    if len(parsed.sources) < 2:
        raise UserError(f"the number of models is {len(parsed.sources)}, but merging takes two or more.")
    if not (parsed.out / "kind.json").is_file():  # one that may be replaced
        check_outside(parsed.out.absolute().parent)  # --out itself may be an artifact, to be replaced
    check_png(plot, "--plot")
    check_file(report, "--plot")
    for name, path in (("--out", parsed.out), ("--plot", plot), ("the record", report)):
        if path.exists() and not parsed.replace:
            raise UserError(f"{name} is {str(path)!r}, which exists already (--replace puts the result in its place).")

    from kind_jax.deploy.bundle import export, open_bundle
    from kind_jax.deploy.decomposition_picture import energy_shares
    from kind_jax.files import atomic_write_bytes
    from kind_jax.merging import merge_record
    from kind_jax.merging.generators import merge, record

    bundles = [open_bundle(path, weights=parsed.weights, kind=Config) for path in parsed.sources]
    merged = merge(
        bundles, learngenes=learngenes, tailors=parsed.tailors, projections=parsed.projections or None,
        align=parsed.align, method=parsed.method,
    )  # fmt: skip
    export(merged.bundle, parsed.out, replace=parsed.replace)
    merge_record.write(report, record(merged))
    if merged.layers:
        atomic_write_bytes(plot, energy_shares(merged.layers))
    _show(merged, bundles)
    say_paths(_headline(merged), {"artifact": parsed.out, "record": report, "plot": plot})
    return 0


def _learngenes(text: str | None) -> int | Literal["full"] | None:
    if text is None or text == "full":
        return text
    if not (text.isdecimal() and int(text[:10]) >= 1 and len(text) < 10):
        raise UserError(f"--learngenes is {text!r:.200}, but it must be a number, 1 or more, or 'full'.")
    return int(text)


def _headline(merged: Merged) -> str:
    ways = {
        "exact": "joined exactly: the models have the same learngenes and dense parameters",
        "joint": "decomposed together", "average": "averaged",
    }  # fmt: skip
    names = merged.bundle.class_names
    return f"{ways[merged.method]}; serves {describe(merged.bundle.served, names)}"


def _show(merged: Merged, bundles: list[Bundle]) -> None:
    from kind_jax.merging.merge_record import HEADER, rows

    if merged.layers:
        table("projections of all models, energy and errors as means over the classes", HEADER, rows(merged.layers))
    apart = sorted(merged.differences.items(), key=lambda pair: -pair[1])
    if apart:
        most = [(name, f"{value:.3f}") for name, value in apart[:8] if value]
        table(f"dense parameters that differ most, of {len(apart)}, all averaged", ("parameter", "difference"), most)
    together = sum(merged.before)
    parts = [(str(bundle.origin), n) for bundle, n in zip(bundles, merged.before, strict=True)]
    table(
        "size",
        ("", "parameters", "bytes", "ratio"),
        [
            (name, f"{n:,}", f"{4 * n:,}", f"{n / together:.2f}")
            for name, n in [*parts, ("all of them", together), ("merged", merged.after)]
        ],
    )
