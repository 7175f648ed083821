"""``kind-jax modules``: how far the modules of a network are, and the command lines that train them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from kind_jax.commands.console import say_paths, table
from kind_jax.commands.given import base_config
from kind_jax.commands.kinds import PLAIN, for_settings
from kind_jax.commands.repeated import without_positionals
from kind_jax.config import Config, RunConfig, presets
from kind_jax.config.check import together
from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.assembling.project import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Show how far the modules in a folder are; with --config, print the command line that trains each of them, on any
    machine and in any order, and one line for a SLURM array. Settings that are given are passed on."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder that has, or will have, the runs module-0, module-1, ..."""
    config: Annotated[Path | None, tyro.conf.arg(help=f"Of a module. {presets.HELP}")] = None
    settings: Annotated[RunConfig, tyro.conf.arg(name="")]


def run(args: list[str]) -> int:
    """Parse ``args``, print the table and the command lines; returns the exit code."""
    base = base_config(Arguments, args, Config(), RunConfig)
    with together():
        form = for_settings(Arguments, type(base))
        parsed = tyro.cli(
            form, args=args, default=form(folder=Path(), settings=base), prog="kind-jax modules", config=PLAIN
        )

    from kind_jax.assembling import project
    from kind_jax.assembling.config import ClassifierModuleRun, DiffusionModuleRun

    config = parsed.settings if parsed.config is not None else None
    if config is not None and not isinstance(config, ClassifierModuleRun | DiffusionModuleRun):
        raise UserError(f"--config is {str(parsed.config)!r}, of the kind {config.task!r}, but it must be of a module.")
    if config is not None and config.module.index is not None:
        raise UserError(f"module.index is {config.module.index}, but it must be left out here: the commands name it.")
    if parsed.folder.exists() and not parsed.folder.is_dir():
        raise UserError(f"{str(parsed.folder)!r} is a file, but it must be a folder.")
    count = None if config is None else len(config.module.depths)
    found = project.progress(parsed.folder, count)
    if not found:
        raise UserError(
            f"{str(parsed.folder)!r} holds no module yet: --config, a preset of modules like vit_digits_module, and "
            "--module.meta print the command lines that make them."
        )
    _say(parsed.folder, found)
    left = [each for each in found if each.state not in ("finished", "running")]
    if config is not None and left:
        _say_commands(without_positionals(form, args), parsed.folder, left, len(found))
    elif not left and all(each.state == "finished" for each in found):
        print(f"all modules are finished: kind-jax assemble {shlex.quote(str(parsed.folder))}")
    elif left:
        print("--config and the other settings of the runs, given here, print the command lines that go on with them.")
    say_paths("modules", {"folder": parsed.folder, "assembled": parsed.folder / "assembled"})
    return 0


def _say(folder: Path, found: Sequence[Progress]) -> None:
    rows = []
    for each in found:
        settings, steps = None if each.config is None else each.config.module, 0
        if each.config is not None:
            steps = each.config.train.steps
        loss, accuracy = each.last("loss"), each.last("top1")
        rows.append((
            each.folder.name,
            "-" if settings is None else str(settings.depths[each.index]),
            each.state,
            f"{each.step:,} of {steps:,}" if steps else "-",
            "-" if loss is None else f"{loss:.4g}",
            "-" if accuracy is None else f"{accuracy:.1%}",
            f"{each.seconds:,.0f} s" if each.lines else "-",
        ))  # fmt: skip
    table(f"modules in {folder}", ("module", "blocks", "state", "step", "loss", "hybrid's accuracy", "in steps"), rows)


def _say_commands(options: Sequence[str], folder: Path, left: Sequence[Progress], count: int) -> None:
    passed = ["kind-jax", "train", *options]
    print("\nto train them, each alone, on any machine that reads the meta model and the data:\n")
    for each in left:
        print(shlex.join([*passed, "--module.index", str(each.index), "--workdir", str(each.folder)]))
    digits = len(str(count - 1))
    number = "$SLURM_ARRAY_TASK_ID" if digits == 1 else f"$(printf %0{digits}d $SLURM_ARRAY_TASK_ID)"
    line = shlex.join([*passed, "--module.index"])
    line += f" $SLURM_ARRAY_TASK_ID --workdir {shlex.quote(str(folder))}/module-{number}"
    which = ",".join(str(each.index) for each in left)
    print(f"\nor as a SLURM array:\n\nsbatch --array={which} --wrap {shlex.quote(line)}\n")
