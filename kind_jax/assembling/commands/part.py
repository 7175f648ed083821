"""Verbs that need a whole model, of which a module is a part."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from kind_jax.commands.kinds import source_among
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """This verb needs a whole model; a module is a part of one. `kind-jax assemble` puts all of them together."""

    source: Annotated[Path, tyro.conf.Positional]
    """A module."""


def run(args: list[str]) -> int:
    """Refuse, saying what to do."""
    if {"-h", "--help"} & set(args):
        tyro.cli(Arguments, args=args, prog="kind-jax")
    raise UserError(
        f"{source_among(args)} is one module of a network, or a folder of modules, but this needs a whole model: "
        "kind-jax assemble puts modules together, kind-jax modules says how they do."
    )
