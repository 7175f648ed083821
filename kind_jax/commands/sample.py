"""``kind-jax sample``: draw a grid of images from a run or an artifact."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from kind_jax.commands.console import Classes, check_png, chosen, say_paths, typed
from kind_jax.commands.sampler import SamplerArguments
from kind_jax.config import Config
from kind_jax.config.check import check_seed
from kind_jax.errors import UserError

_MOST_ROWS = 10_000  # of one picture; evaluate draws more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(SamplerArguments):
    """Draw a grid of images, one column for each class."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run, an artifact, or hf://user/name on the Hub; of an artifact only the tailors of --classes are read."""
    classes: Classes = ()
    """Classes by number, range or name, like 3,7 or 0-4 or cat,dog; default: all that the model serves. What reads as a
    number is a number, also where it is another class's name."""
    rows: int = 8
    """Images of each class."""
    out: Path | None = None
    """PNG file to write; default: samples.png in the run, or beside the artifact."""


def run(args: list[str]) -> int:
    """Parse ``args``, draw, and write the grid; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax sample")
    if not 1 <= parsed.rows <= _MOST_ROWS:
        wanted = "1 or more" if parsed.rows < 1 else f"at most {_MOST_ROWS}"
        raise UserError(f"--rows is {parsed.rows}, but it must be {wanted}.")
    check_seed(parsed.seed, "--seed")
    check_png(parsed.out)
    asked = typed("--classes", parsed.classes)

    import numpy as np

    from kind_jax.deploy.bundle import open_bundle
    from kind_jax.deploy.hub import result_of
    from kind_jax.images import grid, save_png
    from kind_jax.vae import decode_in_batches

    bundle = open_bundle(parsed.source, classes=asked, weights=parsed.weights, kind=Config)
    sampler, vae = parsed.sampler_of(bundle.config), parsed.vae_of(bundle.config)
    classes = chosen(asked, bundle.class_names)
    columns = classes or bundle.served
    labels = np.tile(np.array(columns, np.int32), parsed.rows)
    images = bundle.sample(labels, seed=parsed.seed, sampler=sampler)
    if vae is not None:
        images = decode_in_batches(vae, images)
    name = "samples.png" if classes is None else f"samples_{'_'.join(map(str, classes))[:60]}.png"
    out = parsed.out or result_of(parsed.source, name)
    visible = images if images.shape[-1] in (1, 3) else images[..., :3]
    save_png(out, grid(visible, len(columns), scale=-(-48 // images.shape[1])))
    names = ", ".join(bundle.class_names[c] for c in columns)
    say_paths(f"{len(labels)} images, columns: {names} (step {bundle.step}, {bundle.weights} weights)", {"grid": out})
    if vae is not None:
        print(f"decoded by the VAE {vae.origin} (SHA-256 {vae.fingerprint:.12}...)")
    elif visible is not images:
        print(f"the grid shows 3 of {images.shape[-1]} channels; --vae DIR decodes latents to pictures")
    return 0
