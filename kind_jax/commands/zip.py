"""``kind-jax zip``: several classifiers become one without training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from kind_jax.commands.console import check_outside, say_paths, table
from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.merging.evaluate import Scores
    from kind_jax.merging.figures import Figures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Merge classifiers of one architecture that know different classes into one that knows all of them, by matching
    their features (ZipIt!). Nothing is trained."""

    models: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH PATH [PATH ...]")]
    """Runs or artifacts."""
    out: Path
    """Folder of the artifact to write; figures and a picture go beside it, to <out>_zip.json and <out>_zip.png."""
    to: str = "head"
    """Up to where everything is merged: the number of a stage of a ResNet or of a block of a transformer; 0 for
    nothing, which is the ensemble; head for all but the last layers; all for these too, of models of the same
    classes."""
    method: Literal["zip", "permute", "identity", "optimal"] = "zip"
    """zip: the most similar features first, within a model too; permute: one of each model; identity: those of the same
    number, which averages weights; optimal: pairs of the greatest sum of similarities."""
    alpha: float = 0.3
    """Of zip: what is left of a group's similarities once it has been merged; small values repeat fewer."""
    beta: float = 0.125
    """Of zip: the share of merges that a model may make within itself."""
    stream: Literal["orthogonal", "permute", "zip", "identity"] = "orthogonal"
    """A transformer's residual stream: rotated onto the first model's, treated like other features, or left alone."""
    data: str | None = None
    """A folder of images, or digits, glyphs, textures, animals, with the classes of all models; default: what each
    model was trained on."""
    images: int | None = None
    """Training images to match features on, in all; default: as many of each model's as the smallest has."""
    batch: int = 250
    """Images at a time, over all devices."""
    seed: int = 0
    """Of the choice and order of these images."""
    reset: bool = True
    """Find BatchNorm's statistics anew on these images."""
    split: Literal["test", "validation"] = "test"
    """Which images accuracies are measured on; choose settings by validation, what data.validation held out."""
    weights: Literal["ema", "raw", "best"] | None = None
    """Moving average, last or best weights of runs; default: the moving average, or what artifacts hold."""
    replace: bool = False
    """Replace the artifact at --out, and what lies beside it."""


def run(args: list[str]) -> int:
    """Parse ``args``, merge, measure and write; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax zip")
    if len(parsed.models) < 2:
        raise UserError(f"the number of models is {len(parsed.models)}, but merging takes two or more.")
    if parsed.out.name == "":
        raise UserError(f"--out is {str(parsed.out)!r}, but it must be a folder to write.")
    check_outside(parsed.out.absolute().parent)  # --out itself may be an artifact, to be replaced
    report, plot = (parsed.out.parent / f"{parsed.out.name}_zip.{kind}" for kind in ("json", "png"))
    for path in (parsed.out, report, plot):
        if path.exists() and not parsed.replace:
            raise UserError(f"{str(path)!r} exists already (--replace puts the result in its place).")
    if parsed.out.exists() and not (parsed.out / "kind.json").is_file():
        raise UserError(f"--out is {str(parsed.out)!r}, which is no artifact, so that --replace does not replace it.")

    from kind_jax.deploy.bundle import export, open_bundle
    from kind_jax.files import atomic_write_bytes, atomic_write_text
    from kind_jax.merging import evaluate
    from kind_jax.merging.bundles import models_of, open_tasks, zip_bundles
    from kind_jax.merging.figures import figures
    from kind_jax.merging.images import Mixed
    from kind_jax.merging.picture import picture
    from kind_jax.merging.plan import Settings
    from kind_jax.merging.zipping import ALL

    if parsed.data is not None and parsed.split != "test":
        raise UserError(f"--split is {parsed.split!r}, but with --data it must be 'test'.")
    settings = Settings(method=parsed.method, alpha=parsed.alpha, beta=parsed.beta, stream=parsed.stream)
    bundles = [open_bundle(path, weights=parsed.weights) for path in parsed.models]
    to = _place(parsed.to, bundles[0].config)
    models = models_of(bundles, to)
    images = Mixed(open_tasks(bundles, parsed.data, "train"), count=parsed.images, batch=parsed.batch, seed=parsed.seed)
    tests = open_tasks(bundles, parsed.data, parsed.split)
    merged, found = zip_bundles(bundles, images, to=to, settings=settings, reset=parsed.reset)
    nodes = figures(found, settings)

    names = [_named(path, i) for i, path in enumerate(parsed.models)]
    scores: dict[str, Scores] = {}
    if to == ALL:
        tests = tests[:1]
        scores = {
            name: evaluate.together(each, tests, [each.config.num_classes])
            for name, each in zip(names, models, strict=True)
        }
        scores["merged"] = evaluate.together(found.model, tests, [found.model.config.num_classes])
    else:
        scores = {
            name: evaluate.alone(each, i, tests) for i, (name, each) in enumerate(zip(names, models, strict=True))
        }
        scores["merged"] = evaluate.together(found.model, tests, [each.config.num_classes for each in models])
        scores["ensemble"] = evaluate.ensemble(models, tests)
    sizes = _sizes(found.model, models)
    fields = {
        "models": [str(path) for path in parsed.models], "to": parsed.to, "settings": dataclasses.asdict(settings),
        "data": parsed.data, "images": images.count, "seed": parsed.seed, "reset": parsed.reset, "split": parsed.split,
        "nodes": [dataclasses.asdict(node) for node in nodes],
        "accuracy": {name: {"joint": s.joint, "per_task": s.per_task, "tasks": s.tasks} for name, s in scores.items()},
        "parameters": {name: size[0] for name, size in sizes.items()},
        "flops": {name: size[1] for name, size in sizes.items()},
    }  # fmt: skip
    export(merged, parsed.out, replace=parsed.replace)
    atomic_write_text(report, f"{json.dumps(fields, indent=2)}\n")
    atomic_write_bytes(plot, picture(nodes, scores))

    _say(parsed, nodes, scores, sizes, names)
    say_paths("merged", {"artifact": parsed.out, "figures": report, "picture": plot})
    return 0


def _place(to: str, config: Any) -> int | str:
    """The number of a place by its name."""
    if to in ("all", "head"):
        return to if to == "all" else getattr(config.model, "most_shared", 0)
    if to.isdecimal():
        return int(to)
    raise UserError(f"--to is {to!r}, but it must be the number of a stage or block, or 'head', or 'all'.")


def _named(path: Path, index: int) -> str:
    return f"{chr(ord('A') + index)} alone" if index < 26 else f"model {index + 1} alone"


def _sizes(merged: Any, models: Sequence[Any]) -> dict[str, tuple[int, float]]:
    """Parameters and FLOPs of an image: of one model, of the merged one, and of all of them."""
    import jax

    from kind_jax.classifying.cost import forward

    def of(each: Any) -> tuple[int, float]:
        return sum(int(leaf.size) for leaf in jax.tree.leaves(each.collections)), forward(each.config)

    each = [of(model) for model in models]
    return {
        "one model": each[0], "merged": of(merged),
        "ensemble": (sum(size for size, _ in each), sum(flops for _, flops in each)),
    }  # fmt: skip


def _say(
    parsed: Arguments, nodes: Sequence[Figures], scores: dict[str, Scores], sizes: dict[str, Any], names: Sequence[str]
) -> None:
    if nodes:
        rows = [
            (
                node.name, str(node.features), node.method, _groups(node.sizes), str(node.across), str(node.within),
                "-" if node.similarity is None else f"{node.similarity:.2f}", " ".join(map(str, node.dead)),
            )
            for node in nodes
        ]  # fmt: skip
        header = ("node", "features", "method", "groups of 1, 2, ...", "across", "within", "correlation", "dead")
        table("features that became one", header, rows)
    for name, path in zip(names, parsed.models, strict=True):
        print(f"{name.removesuffix(' alone')}: {path}")
    rows = [
        (name, f"{s.joint:.1%}", f"{s.per_task:.1%}", *("-" if t is None else f"{t:.1%}" for t in s.tasks))
        for name, s in scores.items()
    ]
    tasks = len(next(iter(scores.values())).tasks)
    header = ("model", "joint", "per task", *(f"task {chr(ord('A') + i)}" for i in range(tasks)))
    table(f"accuracy on {parsed.split} images", header, rows)
    one = sizes["one model"]
    table(
        "size", ("model", "parameters", "FLOPs an image"),
        [(name, f"{n:,} ({n / one[0]:.2f} x)", f"{f:,.0f} ({f / one[1]:.2f} x)") for name, (n, f) in sizes.items()],
    )  # fmt: skip


def _groups(sizes: tuple[int, ...] | None) -> str:
    return "rotated" if sizes is None else " ".join(map(str, sizes))
