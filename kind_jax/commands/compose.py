"""``kind-jax compose``: choose classes and a budget, and write the model that serves them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from kind_jax.classes import Typed, describe
from kind_jax.commands.console import Classes, check_png, chosen, say_paths, table
from kind_jax.config import Config
from kind_jax.deploy.amounts import amount
from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.deploy.bundle import Bundle
    from kind_jax.deploy.choose import Importance
    from kind_jax.deploy.compose import Composed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compose a model for some classes within a budget, and write it as an artifact. Nothing is trained."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    classes: Classes
    """Classes to serve by number, range or name, like 3,7 or 0-4 or cat,dog; those of one group are folded in, several
    groups keep their gates. What reads as a number is a number, also where it is another class's name."""
    out: Path
    """Folder to write; it must not exist yet."""
    max_params: str | None = None
    """Most parameters that the model may have, like 200k, 2M or 12345."""
    max_flops: str | None = None
    """Most FLOPs of one evaluation on one image (2 x multiply-adds), like 1.5G."""
    rank: int | None = None
    """Components that every weight keeps, in place of a budget."""
    form: Literal["auto", "dense", "factored"] = "auto"
    """Weights as one matrix, as components, or each as is cheaper."""
    criterion: Literal["svd", "energy", "loss"] = "svd"
    """What ranks components: their energy after factoring anew (svd; by far the best at small sizes) or as they are, or
    the loss on training images."""
    data_path: Annotated[Path | None, tyro.conf.arg(name="data.path")] = None
    """Where those images are; default: as the config says. An artifact knows the last part of the path at most."""
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights of a run; default: the moving average, or what the artifact holds."""
    plot: Path | None = None
    """PNG file of the plot; default: <out>_composition.png beside the artifact."""
    replace: bool = False
    """Replace an artifact that exists at --out."""


def run(args: list[str]) -> int:
    """Parse ``args``, compose and write; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax compose")
    plot = parsed.plot or parsed.out.parent / f"{parsed.out.name}_composition.png"
    check_png(plot, "--plot")  # it is written last, when the artifact is there
    asked = Typed("--classes", parsed.classes)
    bounds = {"max_params": _amount("--max-params", parsed.max_params)}
    bounds["max_flops"] = _amount("--max-flops", parsed.max_flops)
    if parsed.out.exists() and not parsed.replace:
        raise UserError(f"{str(parsed.out)!r} exists already, but --out must be a new folder (or --replace be given).")

    from kind_jax.deploy.bundle import export, open_bundle, with_data
    from kind_jax.deploy.compose import compose
    from kind_jax.deploy.picture import composition_bars
    from kind_jax.files import atomic_write_bytes

    if parsed.data_path is not None and parsed.criterion != "loss":
        raise UserError(f"--data.path is given, but --criterion is {parsed.criterion}, and only loss reads images.")
    bundle = open_bundle(parsed.source, classes=asked, weights=parsed.weights, kind=Config)
    classes = chosen(asked, bundle.class_names) or ()
    composed = compose(
        bundle, classes=classes, **bounds, rank=parsed.rank, form=parsed.form, criterion=parsed.criterion,
        importance=_importance(with_data(bundle, parsed.data_path), classes) if parsed.criterion == "loss" else None,
    )  # fmt: skip
    export(composed.bundle, parsed.out, replace=parsed.replace)
    atomic_write_bytes(plot, composition_bars(composed.record))
    _show(composed, parsed.source)
    say_paths(f"composed for {describe(classes, bundle.class_names)}", {"artifact": parsed.out, "plot": plot})
    return 0


def _amount(option: str, text: str | None) -> int | None:
    return None if text is None else amount(option, text)


def _importance(bundle: Bundle, classes: tuple[int, ...]) -> dict[str, Importance]:
    from kind_jax.deploy.importance import estimate
    from kind_jax.evaluating.reference import open_real

    settings = bundle.config.model
    real = open_real(
        bundle.config.data, "train", bundle.class_names, classes, (settings.size, settings.size, settings.channels),
        instead="let --data.path name one that has all of them, or choose another --criterion",
    )  # fmt: skip
    return estimate(bundle, *real.arrays(50_000, 1 << 32), classes=classes)


def _show(composed: Composed, source: Path) -> None:
    def kept(part: int, whole: int) -> str:
        return f"{part} of {whole}" if whole else "-"

    record, before, after = composed.record, composed.before, composed.after
    table(
        f"{source} for {len(record.classes)} of its classes, {'folded in' if record.folded else 'gated'}",
        ("weight", "always on", "learngenes", "tailors", "energy kept", "error", "parameters", "MFLOPs"),
        [
            (
                k.name, k.form, kept(k.learngenes, k.of_learngenes), kept(k.tailors, k.of_tailors),
                f"{k.energy:.1%}", f"{k.error:.3f}", f"{k.parameters:,}", f"{k.flops / 1e6:.3f}",
            )
            for k in record.weights
        ],
    )  # fmt: skip
    table(
        f"whole model, {record.energy:.2%} of the components' energy kept",
        ("", "source for these classes", "composed", "ratio"),
        [
            (name, f"{old:,}", f"{new:,}", f"{new / old:.2f}")
            for name, old, new in (
                ("parameters", before.parameters, after.parameters),
                ("bytes", 4 * before.parameters, 4 * after.parameters),
                ("FLOPs of an evaluation", before.flops, after.flops),
            )
        ],
    )
