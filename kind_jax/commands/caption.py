"""``kind-jax caption``: say what is on images."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import check_file, say_paths
from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable

_SHOWN = 40  # captions that are printed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Describe images with a model of images and captions."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    images: tuple[Path, ...] = ()
    """Image files, or folders of them; default: held-out images of the model's data set."""
    count: int = 16
    """Held-out images, where no others are given."""
    beams: int = 1
    """Captions that are followed at a time; 1 takes the likeliest token each time."""
    temperature: float | None = None
    """Draw tokens at this temperature instead of taking the likeliest ones."""
    top_k: int | None = None
    """With --temperature: among so many likeliest tokens."""
    top_p: float | None = None
    """With --temperature: among the likeliest tokens that together have this probability."""
    prompt: str = ""
    """How every caption begins."""
    seed: int = 0
    """Seed of drawn tokens."""
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights of a run; default: the moving average, or what the artifact holds."""
    data_path: Annotated[Path | None, tyro.conf.arg(name="data.path")] = None
    """Where the data set is; default: as the run's config says."""
    out: Path | None = None
    """PNG file of the images with their captions, beside which goes a .jsonl; default: captions.png in the run, or
    beside the artifact."""


def run(args: list[str]) -> int:
    """Parse ``args``, describe, and write picture and captions; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax caption")
    if not 1 <= parsed.count <= 10_000:
        raise UserError(f"--count is {parsed.count}, but it must be between 1 and 10000.")
    if not 0 <= parsed.seed < 2**32:
        raise UserError(f"--seed is {parsed.seed}, but it must be between 0 and {2**32 - 1}.")
    if parsed.temperature is not None and parsed.beams != 1:
        raise UserError(
            f"--beams is {parsed.beams}, but it must be 1 with --temperature: tokens are drawn, or searched."
        )
    for name, value in (("--top-k", parsed.top_k), ("--top-p", parsed.top_p)):
        if value is not None and parsed.temperature is None:
            raise UserError(f"{name} is {value}, but it must not be given without --temperature.")
    from kind_jax.deploy.hub import result_of

    out = parsed.out or result_of(parsed.source, "captions.png")
    if out.suffix != ".png":
        raise UserError(f"--out is {str(out)!r}, but it must end in .png.")
    listed = out.with_suffix(".jsonl")
    for path in (out, listed):
        check_file(path)

    from kind_jax.captioning.config import CaptionRun
    from kind_jax.captioning.describe import describe, given, held_out
    from kind_jax.captioning.show import picture
    from kind_jax.deploy.bundle import open_bundle, with_data
    from kind_jax.files import atomic_write_bytes, atomic_write_text

    bundle = with_data(open_bundle(parsed.source, weights=parsed.weights, kind=CaptionRun), parsed.data_path)
    found = given(bundle, parsed.images) if parsed.images else held_out(bundle, parsed.count)
    said = describe(
        bundle, found.images, beams=parsed.beams, temperature=parsed.temperature, top_k=parsed.top_k,
        top_p=parsed.top_p, prompt=parsed.prompt, seed=parsed.seed,
    )  # fmt: skip
    lines = [{"image": name, "caption": text} for name, text in zip(found.names, said, strict=True)]
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(listed, "".join(f"{json.dumps(line)}\n" for line in lines))
    atomic_write_bytes(out, picture(found.images[:64], said[:64], None if found.own is None else found.own[:64]))
    for line in lines[:_SHOWN]:
        print(f"  {printable(line['image'], 500)}: {printable(line['caption'], 500)}")  # a model may say anything
    if len(lines) > _SHOWN:
        print(f"  ... and {len(lines) - _SHOWN} more")
    say_paths("written", {"picture": out, "captions": listed})
    return 0
