"""``kind-jax transfer``: move a model to new classes or a new domain."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import option, say_run
from kind_jax.commands.given import base_config
from kind_jax.config import Config, presets
from kind_jax.config.check import together
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train fresh tailors on frozen learngenes, or fine-tune in another way (--transfer.method)."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact to start from."""
    workdir: Path | None = None
    """Folder of the new run, needed; the same command continues it."""
    config: Annotated[
        Path | None,
        tyro.conf.arg(help=f"{presets.HELP} Default: the source's settings with the number of classes of the data."),
    ] = None
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights of a source that is a run; default: the moving average."""
    stop_after: int | None = None
    """Stop after this step; the same command without it continues the run."""
    resume: Literal["auto", "never", "always"] = "auto"
    """auto: continue the run in --workdir if there is one. never: refuse to. always: refuse to begin a new one."""
    settings: Annotated[Config, tyro.conf.arg(name="")]


def run(args: list[str]) -> int:
    """Parse ``args``, train, and say what moved and where everything lies; returns the exit code."""
    asks_help = bool({"-h", "--help"} & set(args))
    if not asks_help and (not args or args[0].startswith("-")):
        raise UserError("the source must come first, a run or an artifact: kind-jax transfer SOURCE --workdir DIR ...")
    from kind_jax.transferring.settings import begun, of_other_source, with_classes, with_method
    from kind_jax.transferring.whole import settings_of

    source = Path() if asks_help else Path(args[0])
    path = option(args, "--config")
    base = Config()
    if not (asks_help or path):
        base = begun(settings_of(source, Config, "the source"))
    base = base_config(Arguments, args, base)
    if path is None and option(args, "--data.source") not in (None, base.data.source):
        base = of_other_source(base)
    base = with_method(base)
    with together():
        parsed = tyro.cli(
            Arguments, args=args, default=Arguments(source=source, settings=base), prog="kind-jax transfer"
        )
    if parsed.workdir is None:
        raise UserError("--workdir is missing, but it must name the folder of the new run.")

    from kind_jax.data.dataset import open_dataset
    from kind_jax.deploy.bundle import open_bundle
    from kind_jax.train import hosts
    from kind_jax.transferring.run import footprint, prepare, transfer

    hosts.join()
    bundle = open_bundle(parsed.source, weights=parsed.weights, kind=Config)
    config = parsed.settings
    names = open_dataset(config.data, "train").class_names
    if path is None:
        config = with_classes(config, len(names))
    cost = footprint(prepare(bundle, config))
    if hosts.is_first():
        print(
            f"{config.transfer.method} to {len(names)} classes ({', '.join(names)[:60]}): "
            f"{cost.trained:,} of {cost.parameters:,} parameters are trained; "
            f"{cost.optimizer_bytes / 1e6:.1f} MB of optimizer state"
        )
    summary = transfer(bundle, config, parsed.workdir, stop_after=parsed.stop_after, resume=parsed.resume)
    return say_run(summary, config.train.steps)
