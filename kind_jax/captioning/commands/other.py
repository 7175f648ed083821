"""Verbs that are about classes, which a model of images and captions does not have."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from kind_jax.commands.kinds import source_among
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """This verb is about the classes of a model; one of images and captions has none."""

    source: Annotated[Path, tyro.conf.Positional]
    """A model of images and captions."""


def run(args: list[str]) -> int:
    """Refuse, saying what there is."""
    if {"-h", "--help"} & set(args):
        tyro.cli(Arguments, args=args, prog="kind-jax")
    raise UserError(
        f"{source_among(args)} is a model of images and captions, but this verb needs one with classes: "
        "kind-jax caption describes images with it, kind-jax evaluate measures it."
    )
