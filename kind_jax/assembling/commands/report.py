"""``kind-jax report`` of modules: one HTML file about all of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

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
    model = any((parsed.source / name).is_file() for name in ("config.json", "kind.json"))
    root = Path(os.path.abspath(parsed.source)).parent if model else parsed.source
    if parsed.batch < 1:
        raise UserError(f"--batch is {parsed.batch}, but it must be 1 or more.")

    from kind_jax.assembling import costs, project
    from kind_jax.files import atomic_write_text
    from kind_jax.report import Text, render_report

    modules = [each for each in project.progress(root) if each.config is not None]
    runs = [each for each in modules if each.logged]
    if not runs:
        raise UserError(f"{str(root)!r} has no run of a module.")
    out = parsed.out or root / "report.html"
    check_file(out)
    config: Any = runs[0].config
    settings = config.module
    places = _places(parsed, config, root)
    spent = {"meta model": costs.of_folder(places.meta) if places.meta is not None else None}
    spent |= {each.folder.name: costs.of_module(each) if each.logged else None for each in modules}
    spent |= {"fine-tuning": None if places.tuned is None else costs.of_folder(places.tuned)}

    finished = sum(each.state == "finished" for each in modules)
    summary = [
        ("network", f"{sum(settings.depths)} blocks in {len(settings.depths)} modules of {_list(settings.depths)}"),
        ("modules finished", f"{finished} of {len(settings.depths)}"),
    ]
    accuracies = _accuracies(config, places, runs, parsed.batch)
    text = (
        "Each module was trained alone, in place of its counterpart in a shallow meta model that stays as it is. The "
        "meta model with one module replaced is a hybrid."
    )
    sections: list[Any] = [
        Text(body=text), *_curves(runs, places.tuned), _table(modules), *_samples(runs),
        _costs(spent, len(settings.depths)),
    ]  # fmt: skip
    summary += accuracies
    atomic_write_text(out, render_report(f"{root.resolve().name}: {len(settings.depths)} modules", summary, sections))
    for name, value in summary:
        print(f"  {name}: {value}")
    found = {"meta": places.meta, "assembled": places.assembled, "tuned": places.tuned}
    shown = {name: place for name, place in found.items() if place is not None}
    say_paths("everything lies in", {"report": out, "modules": root, **shown})
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


class _Places(NamedTuple):
    """Where the rest lies; None for what is not there."""

    meta: Path | None
    assembled: Path | None
    tuned: Path | None


def _places(parsed: Arguments, config: Any, root: Path) -> _Places:
    """What was named, or lies where it usually does.

    Raises:
      UserError: something that was named is not there, or of another kind.
    """
    from kind_jax.assembling.config import whole_run
    from kind_jax.transferring.whole import settings_of

    kind = type(whole_run(config))
    for name, given in (("--meta", parsed.meta), ("--assembled", parsed.assembled), ("--tuned", parsed.tuned)):
        if given is not None:
            settings_of(given, kind, name)
    if parsed.tuned is not None and not (parsed.tuned / "config.json").is_file():
        raise UserError(f"--tuned is {str(parsed.tuned)!r}, an artifact, but it must be the run that fine-tunes.")
    meta = None if config.module.meta is None else Path(config.module.meta)
    usual = (meta, root / "assembled", root / "tuned")
    there = (
        folder if folder is not None and any((folder / n).is_file() for n in ("config.json", "kind.json")) else None
        for folder in usual
    )
    given = (parsed.meta, parsed.assembled, parsed.tuned)
    return _Places(*(mine or theirs for mine, theirs in zip(given, there, strict=True)))


def _accuracies(config: Any, places: _Places, runs: Sequence[Progress], batch: int) -> list[tuple[str, str]]:
    """Held-out accuracy of everything that has one."""
    from kind_jax.assembling.config import ClassifierModuleRun

    if not isinstance(config, ClassifierModuleRun):
        return []
    split, rows = config.holdout, []
    theirs = [] if places.meta is None else _points(_metrics(places.meta), "_top1")
    if theirs:
        rows.append((f"meta model, {split} accuracy", f"{theirs[-1][1]:.2%}"))
    hybrids = [found[-1][1] for each in runs if (found := _points(each.lines, "_top1"))]
    if hybrids:
        rows.append((f"hybrids, {split} accuracy", f"{min(hybrids):.2%} to {max(hybrids):.2%}"))
    if places.assembled is not None:
        found = _measured(places.assembled, config, split, batch)
        rows.append((f"assembled, before fine-tuning, {split} accuracy", found))
    after = [] if places.tuned is None else _points(_metrics(places.tuned), "_top1")
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


def _curves(runs: Sequence[Progress], tuned: Path | None) -> list[Any]:
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
    shares["fine-tuning"] = [] if tuned is None else _points(_metrics(tuned), "_top1")
    if any(shares.values()):
        caption = "Held-out accuracy: of each hybrid while its module is trained, and of the assembled network."
        found.append(Picture(png=over_steps(shares, "accuracy (%)", scale=100.0), caption=caption, heading="Accuracy"))
    return found


def _table(runs: Sequence[Progress]) -> Any:
    import jax

    from kind_jax.assembling import held
    from kind_jax.report import Table

    rows = []
    for each in runs:
        count = sum(leaf.size for leaf in jax.tree.leaves(held.shapes(each.config)))
        loss, accuracy = each.last("loss"), each.last("top1")
        rows.append(
            (
                each.folder.name, each.state if each.logged else "artifact", f"{each.step:,}",
                str(each.config.module.depths[each.index]), f"{count:,}", "" if loss is None else f"{loss:.4g}",
                *([] if accuracy is None else [f"{accuracy:.2%}"]),
            )
        )  # fmt: skip
    header = ("module", "state", "step", "blocks", "parameters", "loss", "hybrid's accuracy")
    width = max(map(len, rows))
    rows = [(*row, *[""] * (width - len(row))) for row in rows]
    return Table(header=header[:width], rows=tuple(rows), heading="Modules")


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


def _costs(spent: dict[str, Cost | None], count: int) -> Any:
    from kind_jax.assembling.costs import NOTHING
    from kind_jax.report import Table

    def row(name: str, cost: Cost | None) -> tuple[str, ...]:
        if cost is None:
            return name, "not known", "", "", ""
        seconds = f"{cost.seconds:,.0f}" if cost.seconds >= 10 else f"{cost.seconds:.2g}"
        return name, f"{cost.steps:,}", f"{cost.block_images / 1e6:,.3g}", f"{cost.flops / 1e12:,.4g}", seconds

    first, last = spent["meta model"], spent["fine-tuning"]
    modules = [cost for name, cost in spent.items() if name.startswith("module-") and cost is not None]
    whole = first is not None and last is not None and len(modules) == count
    ends = (first or NOTHING) + (last or NOTHING)
    what = "all" if whole else "what is known"
    slowest = max(modules, key=lambda cost: cost.seconds)
    rows = [row(name, cost) for name, cost in spent.items()]
    rows.append(row(f"{what}, one after the other", sum(modules, ends)))
    rows.append(row(f"{what}, modules side by side", ends + slowest))
    return Table(
        header=("run", "steps", "million block-images", "TFLOPs", "seconds in steps"), rows=tuple(rows),
        heading="What it cost",
        caption="Block-images are blocks times images, frozen blocks included; divided by the images of an epoch, "
        "block-epochs. FLOPs leave out what frozen blocks do not need: weight gradients, and any backward pass before "
        "the module. Side by side: the meta model, the slowest module, and fine-tuning. Of artifacts, and of what lies "
        "elsewhere, the cost is not known: --meta and --tuned say where it lies.",
    )  # fmt: skip
