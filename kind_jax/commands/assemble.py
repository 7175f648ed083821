"""``kind-jax assemble``: put modules together."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kind_jax.commands.console import say_paths, table
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Put all modules of a network together: one model, to be fine-tuned with `kind-jax train --init`."""

    modules: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Runs or artifacts of all modules, in order; or the one folder that holds them as module-0, module-1, ..."""
    out: Path | None = None
    """Folder of the artifact to write; default: assembled in the folder that holds the modules."""
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights of the runs; default: the moving average, or what artifacts hold."""
    unfinished: bool = False
    """Take modules as far as they are, before their last step too."""
    replace: bool = False
    """Replace the artifact at --out."""


def run(args: list[str]) -> int:
    """Parse ``args`` and write the model; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax assemble")
    if not parsed.modules:
        raise UserError("the modules are missing: name the folder that holds them, or all of them in order.")

    from kind_jax.assembling import project
    from kind_jax.assembling.bundles import assemble_bundles
    from kind_jax.deploy import artifact
    from kind_jax.deploy.bundle import export, open_bundle

    folders, root = list(parsed.modules), Path(os.path.abspath(parsed.modules[0])).parent
    if len(folders) == 1 and not any((folders[0] / name).is_file() for name in ("config.json", artifact.MANIFEST)):
        root = folders[0]
        found = project.progress(root)  # refuses modules under wrong names
        if not found:
            raise UserError(f"{str(root)!r} is neither a module nor a folder with module-0, module-1, ...")
        folders = [each.folder for each in found if each.config is not None]
    out = parsed.out or root / "assembled"
    _check_out(out, folders, replace=parsed.replace)
    if not parsed.unfinished:
        _check_finished(folders)
    bundles = [open_bundle(folder, weights=parsed.weights) for folder in folders]
    whole = assemble_bundles(bundles)
    export(whole, out, replace=parsed.replace)
    rows = [(str(b.origin), str(b.config.module.depths[i]), f"{b.step:,}", _size(b)) for i, b in enumerate(bundles)]
    rows.append((str(out), str(sum(bundles[0].config.module.depths)), "", _size(whole)))
    table("assembled", ("module", "blocks", "step", "parameters"), rows)
    say_paths("assembled", {"artifact": out})
    return 0


def _check_out(out: Path, modules: Sequence[Path], *, replace: bool) -> None:
    """Refuse a place for the artifact that is taken, or in or around one of the modules.

    Raises:
      UserError: see above.
    """
    place = out.resolve()
    for each in (folder.resolve() for folder in modules):
        if place == each or each in place.parents or place in each.parents:
            raise UserError(f"--out is {str(out)!r}, but it must lie apart from the modules, like {str(each)!r}.")
    if out.exists() and not replace:
        raise UserError(f"--out is {str(out)!r}, which exists; --replace replaces it.")
    if out.exists() and not (out / "kind.json").is_file():
        raise UserError(f"--out is {str(out)!r}, which is no artifact, so that --replace does not replace it.")


def _size(bundle: Any) -> str:
    import jax

    return f"{sum(leaf.size for leaf in jax.tree.leaves(bundle.collections)):,}"


def _check_finished(folders: list[Path]) -> None:
    """Refuse runs that have not come to their last step."""
    from kind_jax.train import history
    from kind_jax.train.run import load_config

    for folder in folders:
        if not (folder / "config.json").is_file():  # an artifact is as far as somebody wanted it to be
            continue
        steps = load_config(folder).train.steps
        done = max(history.steps(folder / "checkpoints"), default=0)
        if done < steps:
            raise UserError(
                f"{folder} is at step {done:,} of {steps:,}: let it finish, or take it as it is with --unfinished."
            )
