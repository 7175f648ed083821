"""``kind-jax transfer``: move a model to new classes or a new domain."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import option, say_run
from kind_jax.commands.given import base_config
from kind_jax.config import Config, TransferConfig, presets
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


def _settings_of(source: Path) -> Config:
    """The config that a run or an artifact was trained with, as the start of a new one."""
    from kind_jax.deploy import artifact
    from kind_jax.train.run import load_config

    old = (
        artifact.read_manifest(source).config if (source / artifact.MANIFEST).is_file() else load_config(source, Config)
    )
    # Synthetic images were drawn for the source's classes: a transfer names its own.
    data = dataclasses.replace(old.data, mix=None, mix_ratio=1.0)
    # What is frozen follows from the method.
    optimizer = dataclasses.replace(old.optimizer.thawed, warmup=0)
    return dataclasses.replace(old, data=data, transfer=TransferConfig(), optimizer=optimizer)


def run(args: list[str]) -> int:
    """Parse ``args``, train, and say what moved and where everything lies; returns the exit code."""
    asks_help = bool({"-h", "--help"} & set(args))
    if not asks_help and (not args or args[0].startswith("-")):
        raise UserError("the source must come first, a run or an artifact: kind-jax transfer SOURCE --workdir DIR ...")
    source = Path() if asks_help else Path(args[0])
    path = option(args, "--config")
    base = base_config(Arguments, args, Config() if asks_help or path else _settings_of(source))
    if path is None and option(args, "--data.source") not in (None, base.data.source):
        # What the source chose of its own data set, and what is known of its latents, means nothing in another one.
        own = {"classes": None, "protocol": None, "name": None, "latent_scale": None, "fraction": 1.0}
        base = dataclasses.replace(base, data=dataclasses.replace(base.data, **own))
    if base.transfer.method == "none":
        method = "kind" if base.model.factor.projections else "full"
        base = dataclasses.replace(base, transfer=dataclasses.replace(base.transfer, method=method))
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
        classes = len(names)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, num_classes=classes, groups=None))
    cost = footprint(prepare(bundle, config))
    if hosts.is_first():
        print(
            f"{config.transfer.method} to {len(names)} classes ({', '.join(names)[:60]}): "
            f"{cost.trained:,} of {cost.parameters:,} parameters are trained; "
            f"{cost.optimizer_bytes / 1e6:.1f} MB of optimizer state"
        )
    summary = transfer(bundle, config, parsed.workdir, stop_after=parsed.stop_after, resume=parsed.resume)
    return say_run(summary, config.train.steps)
