"""``kind-jax export``: write a model as an artifact that can be fetched in parts, or in another program's format."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from kind_jax.commands.console import Classes, chosen, say_paths, table, typed
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
    license: str | None = None
    """Licence that the model card of an artifact names, as the Hub identifies it, like apache-2.0; default: that of the
    artifact it comes from, or unknown."""
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
    from kind_jax.interchange.formats import export, kind_of

    bundle = open_bundle(parsed.source, classes=classes, weights=parsed.weights, kind=kind_of(parsed.to))
    chosen(classes, bundle.class_names)
    written = export(bundle, parsed.out, to=parsed.to, replace=parsed.replace, license=parsed.license)
    _say(bundle, parsed, written)
    return 0


def _say(bundle: Bundle, parsed: Arguments, found: dict[str, Any]) -> None:
    """What was written, and what another program has to be told; ``found`` is what writing it gave."""
    if parsed.to == "artifact":
        rows = [
            (name, f"{info['bytes']:,}", str(len(info["arrays"])), info["sha256"][:12])
            for name, info in found["files"].items()
        ]
        title = f"{parsed.out} (step {bundle.step}, {bundle.weights} weights)"
        table(title, ("file", "bytes", "arrays", "SHA-256"), rows)
        say_paths("exported", {"artifact": parsed.out})
    elif parsed.to == "stablehlo":
        from kind_jax.interchange import stablehlo

        paths = {"program": stablehlo.PROGRAM, "weights": stablehlo.WEIGHTS, "signature": stablehlo.SIGNATURE}
        paths |= {"example": stablehlo.SCRIPT}
        say_paths("exported", {name: parsed.out / file for name, file in paths.items()})
    elif parsed.to in _DIFFERENCES:
        if off := found["difference"]:
            print(f"warning: the model has {_DIFFERENCES[parsed.to].format(off=off)}")
        say_paths("exported", {"folder" if parsed.to == "diffusers" else "state dict": parsed.out})
    else:
        from kind_jax.commands.origins import untold

        print(f"{parsed.to} has to be told what no array tells: {untold(bundle.config.model)}")
        say_paths("exported", {"state dict": parsed.out})


_DIFFERENCES = {
    "dit": "diffusers' time frequencies or epsilon; the official code's outputs with these weights differ by up to "
    "{off:.1e} of the largest output",
    "diffusers": "the official time frequencies, which diffusers has no setting for; without the line that README.md "
    "in the folder gives, its outputs differ by up to {off:.1e} of the largest output",
}
