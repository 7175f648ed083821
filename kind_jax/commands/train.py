"""``kind-jax train``, also ``python train.py``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import option, say_paths
from kind_jax.config import Config, load_file
from kind_jax.errors import UserError
from kind_jax.train.ending import EXIT_RESTARTABLE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train a model, or continue the run in --workdir."""

    config: Path | None = None
    """Python file with get_config(); needed. Every setting below can override it."""
    workdir: Path | None = None
    """Folder of the run; default: runs/ and the name of the config file."""
    stop_after: int | None = None
    """Stop after this step; the same command without it continues the run."""
    resume: Literal["auto", "never", "always"] = "auto"
    """auto: continue the run in --workdir if there is one. never: refuse to. always: refuse to begin a new one."""
    settings: Annotated[Config, tyro.conf.arg(name="")]


def run(args: list[str]) -> int:
    """Parse ``args``, train, and say where everything lies; returns the exit code."""
    path = option(args, "--config")  # the file's settings are the defaults of all other flags, so it is read first
    base = load_file(path) if path else Config()
    parsed = tyro.cli(Arguments, args=args, default=Arguments(settings=base), prog="kind-jax train")
    if parsed.config is None:
        raise UserError(
            "--config is missing, but it must name a Python file with get_config(), like configs/digits.py."
        )
    directory = parsed.workdir or Path("runs") / parsed.config.stem

    from kind_jax.train import hosts  # after parsing: `--help` should not wait for JAX
    from kind_jax.train.loop import train

    hosts.join()

    summary = train(parsed.settings, directory, stop_after=parsed.stop_after, resume=parsed.resume)
    if not hosts.is_first():
        return EXIT_RESTARTABLE if summary.interrupted else 0
    print(f"waits: {summary.waits}")
    state = "finished" if summary.step >= parsed.settings.train.steps else "stopped"
    say_paths(
        f"{state} at step {summary.step} of {parsed.settings.train.steps} after {summary.seconds:.0f} s",
        {
            "checkpoints": directory / "checkpoints",
            "metrics": directory / "metrics.jsonl",
            "samples": directory / "samples",
            "config": directory / "config.json",
        },
    )
    return EXIT_RESTARTABLE if summary.interrupted else 0
