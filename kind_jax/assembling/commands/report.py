"""``kind-jax report`` of modules: one HTML file about all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from kind_jax.commands.console import check_file, say_paths
from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.assembling.costs import Cost
    from kind_jax.assembling.project import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a self-contained report.html about the modules in a folder: curves of each, accuracy of the hybrids, of the
    assembled network before fine-tuning and while it is fine-tuned, samples of diffusion, and what everything cost."""

    source: Annotated[Path, tyro.conf.Positional]
    """The folder with module-0, module-1, ...; or one of these."""
    assembled: Path | None = None
    """The assembled artifact; default: assembled in that folder, if it is there."""
    tuned: Path | None = None
    """The run that fine-tunes it; default: tuned in that folder, if it is there."""
    meta: Path | None = None
    """The run of the meta model; default: where the modules' runs say."""
    out: Path | None = None
    """HTML file to write; default: report.html in that folder."""
    batch: int = 256
    """Images at a time, over all devices, of the assembled network's accuracy."""


def run(args: list[str]) -> int:
    """Parse ``args`` and write the report; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax report")
    root = parsed.source.parent if (parsed.source / "config.json").is_file() else parsed.source
    out = parsed.out or root / "report.html"
    check_file(out)
    if parsed.batch < 1:
        raise UserError(f"--batch is {parsed.batch}, but it must be 1 or more.")

    from kind_jax.assembling import costs, project
    from kind_jax.files import atomic_write_text
    from kind_jax.report import Text, render_report

    runs = [each for each in project.progress(root) if each.config is not None]
    if not runs:
        raise UserError(f"{str(root)!r} has no run of a module.")
    config: Any = runs[0].config
    settings = config.module
    meta = parsed.meta or (None if settings.meta is None else Path(settings.meta))
    tuned = parsed.tuned or root / "tuned"
    spent = {"meta model": None if meta is None else costs.of_folder(meta)}
    modules = {each.folder.name: costs.of_module(each) for each in runs}
    after = costs.of_folder(tuned)

    summary = [
        ("network", f"{sum(settings.depths)} blocks in {len(settings.depths)} modules of {_list(settings.depths)}"),
        ("modules finished", f"{sum(each.state == 'finished' for each in runs)} of {len(settings.depths)}"),
    ]
    summary += _accuracies(config, meta, runs, parsed.assembled or root / "assembled", tuned, parsed.batch)
    sections: list[Any] = [
        Text(
            body="Each module was trained alone, in place of its counterpart in a shallow meta model that stays as it "
            "is. The accuracy of a hybrid is that of the meta model with one module replaced."
        ),
        *_curves(runs, tuned),
        _table(runs),
        *_samples(runs),
        _costs(spent["meta model"], modules, after),
    ]
    atomic_write_text(out, render_report(f"{root.name}: {len(settings.depths)} modules", summary, sections))
    for name, value in summary:
        print(f"  {name}: {value}")
    say_paths("everything lies in", {"report": out, "modules": root, "assembled": root / "assembled", "tuned": tuned})
    return 0


def _list(depths: Sequence[int]) -> str:
    return f"{depths[0]} each" if len(set(depths)) == 1 else ", ".join(map(str, depths))


def _points(lines: Sequence[dict[str, Any]], ending: str) -> list[tuple[int, float]]:
    return [
        (int(line["step"]), float(value))
        for line in lines
        for key, value in line.items()
        if key.endswith(ending) and isinstance(value, int | float)
    ]


def _metrics(folder: Path) -> list[dict[str, Any]]:
    from kind_jax.train.metrics import FILE_NAME, read_metrics

    return read_metrics(folder / FILE_NAME) if (folder / FILE_NAME).is_file() else []


def _accuracies(
    config: Any, meta: Path | None, runs: Sequence[Progress], assembled: Path, tuned: Path, batch: int
) -> list[tuple[str, str]]:
    """Held-out accuracy of everything that has one."""
    from kind_jax.assembling.config import ClassifierModuleRun

    if not isinstance(config, ClassifierModuleRun):
        return []
    split, rows = config.holdout, []
    theirs = [] if meta is None else _points(_metrics(meta), "_top1")
    if theirs:
        rows.append((f"meta model, {split} accuracy", f"{theirs[-1][1]:.2%}"))
    hybrids = [found[-1][1] for each in runs if (found := _points(each.lines, "_top1"))]
    if hybrids:
        rows.append((f"hybrids, {split} accuracy", f"{min(hybrids):.2%} to {max(hybrids):.2%}"))
    if (assembled / "kind.json").is_file():
        rows.append((f"assembled, before fine-tuning, {split} accuracy", _measured(assembled, config, split, batch)))
    after = _points(_metrics(tuned), "_top1")
    if after:
        rows.append((f"fine-tuned, {split} accuracy", f"{after[-1][1]:.2%} at step {after[-1][0]:,}"))
    return rows


def _measured(assembled: Path, config: Any, split: Any, batch: int) -> str:
    from kind_jax.classifying import evaluation
    from kind_jax.classifying.config import ClassifyRun
    from kind_jax.deploy.bundle import open_bundle

    bundle = open_bundle(assembled, kind=ClassifyRun)
    found = evaluation.evaluate(bundle, evaluation.open_split(bundle, config.data, split), batch)
    return evaluation.summary(found)[0][1]


def _curves(runs: Sequence[Progress], tuned: Path) -> list[Any]:
    from kind_jax.plots import over_steps
    from kind_jax.report import Picture

    losses = {
        each.folder.name: [(int(m["step"]), float(m["loss"])) for m in each.lines if isinstance(m.get("loss"), float)]
        for each in runs
    }
    found: list[Any] = []
    if any(losses.values()):
        caption = "Training loss of each hybrid, at its own end: the only loss there is."
        found.append(Picture(png=over_steps(losses, "loss"), caption=caption, heading="Training"))
    shares = {each.folder.name: _points(each.lines, "_top1") for each in runs}
    shares["fine-tuning"] = _points(_metrics(tuned), "_top1")
    if any(shares.values()):
        caption = "Held-out accuracy: of each hybrid while its module is trained, and of the assembled network."
        found.append(Picture(png=over_steps(shares, "accuracy (%)", scale=100.0), caption=caption, heading="Accuracy"))
    return found


def _table(runs: Sequence[Progress]) -> Any:
    import jax

    from kind_jax.assembling import modules
    from kind_jax.report import Table

    rows = []
    for each in runs:
        settings = each.config.module
        part = modules.shapes(each.config.model, settings.depths, each.index)
        loss, accuracy = each.last("loss"), each.last("top1")
        rows.append(
            (
                each.folder.name, each.state, f"{each.step:,}", str(settings.depths[each.index]),
                f"{sum(leaf.size for leaf in jax.tree.leaves(part)):,}", "" if loss is None else f"{loss:.4g}",
                "" if accuracy is None else f"{accuracy:.2%}",
            )
        )  # fmt: skip
    header = ("module", "state", "step", "blocks", "parameters", "loss", "hybrid's accuracy")
    return Table(header=header, rows=tuple(rows), heading="Modules")


def _samples(runs: Sequence[Progress]) -> list[Any]:
    """The newest grid of samples of each hybrid of a diffusion model."""
    from kind_jax.report import Picture, Pictures

    grids = [(each, sorted((each.folder / "samples").glob("step_*.png"))) for each in runs]
    pictures = tuple(
        Picture(png=found[-1].read_bytes(), caption=f"{each.folder.name}, step {int(found[-1].stem[5:]):,}")
        for each, found in grids
        if found
    )
    return [Pictures(pictures=pictures, heading="Samples of the hybrids")] if pictures else []


def _costs(meta: Cost | None, modules: dict[str, Cost], tuned: Cost | None) -> Any:
    from kind_jax.assembling.costs import NOTHING
    from kind_jax.report import Table

    def row(name: str, cost: Cost) -> tuple[str, ...]:
        return (
            name, f"{cost.steps:,}", f"{cost.block_images / 1e6:,.3g}", f"{cost.flops / 1e12:,.4g}",
            f"{cost.seconds:,.0f}",
        )  # fmt: skip

    rows = [] if meta is None else [row("meta model", meta)]
    rows += [row(name, cost) for name, cost in modules.items()]
    rows += [] if tuned is None else [row("fine-tuning", tuned)]
    ends = (meta or NOTHING) + (tuned or NOTHING)
    together = sum(modules.values(), ends)
    slowest = max(modules.values(), key=lambda cost: cost.seconds)
    rows += [row("all, one after the other", together), row("all, modules side by side", ends + slowest)]
    return Table(
        header=("run", "steps", "million block-images", "TFLOPs", "seconds in steps"), rows=tuple(rows),
        heading="What it cost",
        caption="Block-images are blocks times images, frozen blocks included; divided by the images of an epoch, "
        "block-epochs. FLOPs leave out what frozen blocks do not need: weight gradients, and any backward pass before "
        "the module. Side by side: the meta model, the slowest module, and fine-tuning.",
    )  # fmt: skip
