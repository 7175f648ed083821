"""``kind-jax export``: write a model as an artifact that can be fetched in parts, or in another program's format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from kind_jax.commands.console import Classes, chosen, say_paths, table, typed
from kind_jax.config import Config, RunConfig
from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.deploy.bundle import Bundle


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a model: learngenes, dense parameters and one file of tailors per group as safetensors, with a manifest; or
    for other programs."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run, or an artifact to take classes out of."""
    out: Path
    """Folder to write, or the .safetensors file for --to dit, timm, torchvision and open_clip; it must not exist
    yet."""
    to: Literal["artifact", "dit", "diffusers", "stablehlo", "timm", "torchvision", "open_clip"] = "artifact"
    """artifact: ours; dit: the official state dict; diffusers: a folder for DiTTransformer2DModel.from_pretrained;
    stablehlo: a program that needs no kind_jax; timm and torchvision: the state dict of an image classifier; open_clip:
    that of a CoCa. dit and diffusers take models without gated tailors, like those of kind-jax compose --form dense."""
    classes: Classes = ()
    """Classes whose tailors to include, by number, range or name, like 3,7 or 0-4 or cat,dog; default: all."""
    weights: Literal["ema", "raw", "best"] | None = None
    """Moving average, last weights, or (of a classifier) those with the best held-out accuracy of a run; default: the
    moving average, or what the artifact holds."""
    replace: bool = False
    """Replace what exists at --out, if it is of the same kind."""


def run(args: list[str]) -> int:
    """Parse ``args`` and write the model; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax export")
    classes = typed("--classes", parsed.classes)
    if parsed.to in ("timm", "torchvision", "open_clip") and classes is not None:
        raise UserError(f"--classes is given, but a state dict for {parsed.to} has all classes of the model.")
    if parsed.to in ("dit", "diffusers", "timm", "torchvision", "open_clip"):
        from kind_jax.interchange.outgoing import check_out

        check_out(parsed.to, parsed.out, replace=parsed.replace)

    from kind_jax.deploy.bundle import open_bundle

    write, kind = _form(parsed.to)
    bundle = open_bundle(parsed.source, classes=classes, weights=parsed.weights, kind=kind)
    chosen(classes, bundle.class_names)
    write(bundle, parsed)
    return 0


def _form(to: str) -> tuple[Callable[[Bundle, Arguments], None], type[RunConfig]]:
    """What writes a format, and the kind of the models that have it."""
    if to in ("timm", "torchvision"):
        from kind_jax.classifying.config import ClassifyRun

        return _classifier, ClassifyRun
    if to == "open_clip":
        from kind_jax.captioning.config import CaptionRun

        return _coca, CaptionRun
    if to == "artifact":
        return _artifact, RunConfig
    return {"dit": _dit, "diffusers": _diffusers, "stablehlo": _stablehlo}[to], Config


def _artifact(bundle: Bundle, parsed: Arguments) -> None:
    from kind_jax.deploy.bundle import export

    manifest = export(bundle, parsed.out, replace=parsed.replace)
    rows = [
        (name, f"{info['bytes']:,}", str(len(info["arrays"])), info["sha256"][:12])
        for name, info in manifest["files"].items()
    ]
    table(f"{parsed.out} (step {bundle.step}, {bundle.weights} weights)", ("file", "bytes", "arrays", "SHA-256"), rows)
    say_paths("exported", {"artifact": parsed.out})


def _dit(bundle: Bundle, parsed: Arguments) -> None:
    from kind_jax.interchange.outgoing import save_dit

    off = save_dit(bundle, parsed.out, replace=parsed.replace)
    if off:
        print(
            f"warning: the model has diffusers' time frequencies or epsilon; the official code's outputs with these "
            f"weights differ by up to {off:.1e} of the largest output"
        )
    say_paths("exported", {"state dict": parsed.out})


def _diffusers(bundle: Bundle, parsed: Arguments) -> None:
    from kind_jax.interchange.outgoing import save_diffusers

    off = save_diffusers(bundle, parsed.out, replace=parsed.replace)
    if off:
        print(
            f"warning: the model has the official time frequencies, which diffusers has no setting for; without the "
            f"line that README.md in the folder gives, its outputs differ by up to {off:.1e} of the largest output"
        )
    say_paths("exported", {"folder": parsed.out})


def _stablehlo(bundle: Bundle, parsed: Arguments) -> None:
    from kind_jax.interchange import stablehlo

    stablehlo.export(bundle, parsed.out, replace=parsed.replace)
    paths = {"program": stablehlo.PROGRAM, "weights": stablehlo.WEIGHTS, "signature": stablehlo.SIGNATURE}
    paths |= {"example": stablehlo.SCRIPT}
    say_paths("exported", {name: parsed.out / file for name, file in paths.items()})


def _classifier(bundle: Bundle, parsed: Arguments) -> None:
    from kind_jax.commands.origins import untold
    from kind_jax.interchange.outgoing import save_classifier

    assert parsed.to in ("timm", "torchvision")
    save_classifier(bundle, parsed.out, parsed.to, replace=parsed.replace)
    print(f"{parsed.to} has to be told what no array tells: {untold(bundle.config.model)}")
    say_paths("exported", {"state dict": parsed.out})


def _coca(bundle: Bundle, parsed: Arguments) -> None:
    from kind_jax.commands.origins import untold
    from kind_jax.interchange.outgoing import save_coca

    save_coca(bundle, parsed.out, replace=parsed.replace)
    print(f"open_clip has to be told what no array tells: {untold(bundle.config.model)}")
    say_paths("exported", {"state dict": parsed.out})
