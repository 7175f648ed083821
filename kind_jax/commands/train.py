"""``kind-jax train``, also ``python train.py``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kind_jax.commands.console import option, say_paths
from kind_jax.commands.given import base_config
from kind_jax.config import Config, presets
from kind_jax.config.check import together
from kind_jax.errors import UserError
from kind_jax.train.ending import EXIT_RESTARTABLE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train a model, or continue the run in --workdir."""

    config: Annotated[Path | None, tyro.conf.arg(help=f"Needed. {presets.HELP}")] = None
    init: Path | None = None
    """A run or an artifact whose model is trained further, all of it: its model is taken over, its weights are step 0.
    A run that has begun needs it no more."""
    workdir: Path | None = None
    """Folder of the run; default: runs/ and the name of the config file."""
    stop_after: int | None = None
    """Stop after this step; the same command without it continues the run."""
    resume: Literal["auto", "never", "always"] = "auto"
    """auto: continue the run in --workdir if there is one. never: refuse to. always: refuse to begin a new one."""
    settings: Annotated[Config, tyro.conf.arg(name="")]


def _default_folder(config: str | Path | None) -> Path:
    return Path("runs") / Path(config or "").stem


def _source(init: str | None, directory: Path) -> Config | None:
    """The settings of the model that a run begins from, or began from; None for random weights."""
    if init is None and not (directory / "config.json").is_file():
        return None
    if init == "":
        raise UserError("--init is empty, but it must be a run or an artifact.")
    from kind_jax.transfer import whole

    return whole.saved_settings(directory) if init is None else whole.settings_of(Path(init))


def _begin(
    config: Config, source: Config, init: Path | None, directory: Path
) -> tuple[Config, Callable[[], dict[str, Any]] | None]:
    """The complete config, and what gives the weights of step 0."""
    from kind_jax.data.dataset import open_dataset
    from kind_jax.deploy.bundle import open_bundle
    from kind_jax.transfer import whole

    if init is None:
        return whole.go_on(config, source), None
    bundle = open_bundle(init)
    config, weights = whole.begin(config, bundle)
    whole.check_same(config, directory)
    remark = whole.check_classes(bundle, open_dataset(config.data, "train").class_names)
    del bundle
    if remark is not None:
        print(remark)
    return config, [weights].pop  # nothing else keeps them while the run trains


def run(args: list[str]) -> int:
    """Parse ``args``, train, and say where everything lies; returns the exit code."""
    path, base = option(args, "--config"), base_config(Arguments, args, Config())
    source = _source(option(args, "--init"), Path(option(args, "--workdir") or _default_folder(path)))
    if source is not None:
        from kind_jax.transfer import whole

        base = whole.adopt(base, source)
    with together():
        parsed = tyro.cli(Arguments, args=args, default=Arguments(settings=base), prog="kind-jax train")
    if parsed.config is None:
        raise UserError(
            "--config is missing, but it must name a preset, like digits, or a Python file with get_config()."
        )
    directory = parsed.workdir or _default_folder(parsed.config)

    from kind_jax.train import hosts  # after parsing: `--help` should not wait for JAX
    from kind_jax.train.loop import train

    hosts.join()

    config, initial = parsed.settings, None
    if source is not None:
        config, initial = _begin(config, source, parsed.init, directory)
    summary = train(config, directory, stop_after=parsed.stop_after, resume=parsed.resume, initial=initial)
    if not hosts.is_first():
        return EXIT_RESTARTABLE if summary.interrupted else 0
    print(f"waits: {summary.waits}")
    state = "finished" if summary.step >= config.train.steps else "stopped"
    say_paths(
        f"{state} at step {summary.step} of {config.train.steps} after {summary.seconds:.0f} s",
        {
            "checkpoints": directory / "checkpoints",
            "metrics": directory / "metrics.jsonl",
            "samples": directory / "samples",
            "config": directory / "config.json",
        },
    )
    return EXIT_RESTARTABLE if summary.interrupted else 0
