"""``kind-jax push``: share a model on the Hugging Face Hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import Classes, chosen, typed
from kind_jax.commands.told import note_results


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a model to the Hugging Face Hub, with its model card: learngenes, params, a file of tailors per group.

    Needs the extra hub and a login (hf auth login). Everything goes in one commit.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    repository: Annotated[str, tyro.conf.Positional]
    """USER/NAME on the Hub, which is created if it is not there."""
    classes: Classes = ()
    """Classes by number, range or name, like 3,7 or 0-4 or cat,dog; default: all that the model serves."""
    weights: Literal["ema", "raw", "best"] | None = None
    """Which weights of a run; default: the moving average."""
    license: str | None = None
    """Licence of the model, as the Hub identifies it, like apache-2.0; default: that of the artifact, or unknown."""
    private: bool = False
    """Whether a repository that is created is seen by its owner alone."""
    message: str | None = None
    """Message of the commit; default: step and weights."""


def run(args: list[str]) -> int:
    """Parse ``args``, upload, and say where the model is; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax push")
    asked = typed("--classes", parsed.classes)

    from kind_jax.deploy import hub
    from kind_jax.deploy.bundle import open_bundle

    name = hub.check_repository(parsed.repository)  # before weights are read
    bundle = open_bundle(parsed.source, classes=asked, weights=parsed.weights)
    chosen(asked, bundle.class_names)
    page = hub.push(
        bundle, name, license=parsed.license, private=parsed.private, message=parsed.message
    )  # fmt: skip
    note_results("pushed", {})
    print(f"pushed\n  page  {page}\n  open  kind_jax.open_bundle('hf://{name}')")
    return 0
