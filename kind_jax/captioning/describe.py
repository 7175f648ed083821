"""Images that are given, and what a model says about them. N images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from kind_jax.captioning import decode as search
from kind_jax.captioning import texts
from kind_jax.data.dataset import open_dataset
from kind_jax.data.decode import BadImage, decode, to_float
from kind_jax.data.folder import SUFFIXES
from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError
from kind_jax.text.tokenizer import tokenizer_of

_BATCH = 64


class Images(NamedTuple):
    """Images in [-1, 1], what each is called, and its own caption where it has one."""

    images: Float[np.ndarray, "N H W C"]
    names: list[str]
    own: list[str] | None


def held_out(bundle: Bundle, count: int) -> Images:
    """Images from all over the held-out split of the model's data set."""
    dataset = open_dataset(bundle.config.data, bundle.config.holdout)
    texts.check_data(bundle.config, dataset)
    rows, captions = texts.spread(len(dataset.source), count), texts.captions_of(dataset)
    images = dataset.source.gather(rows)["image"]
    return Images(images, [f"{bundle.config.holdout} {i}" for i in rows], [captions[i][0] for i in rows])


def given(bundle: Bundle, paths: Sequence[Path]) -> Images:
    """Image files, and those in folders, in the size that the model sees.

    Raises:
      UserError: a path is neither, a folder has no image, or a file is none that can be read.
    """
    files: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"--images has {str(path)!r}, but this folder has no image files.")
        files += inside
    return Images(np.stack([_read(bundle, path) for path in files]), [str(path) for path in files], None)


def _read(bundle: Bundle, path: Path) -> Float[np.ndarray, "H W C"]:
    settings = bundle.config.model
    try:
        return to_float(decode(path.read_bytes(), settings.size, settings.channels))
    except (BadImage, OSError) as e:
        raise UserError(f"--images has {str(path)!r}, which cannot be read as an image: {e}.") from e


def describe(
    bundle: Bundle,
    images: Float[np.ndarray, "N H W C"],
    *,
    beams: int = 1,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    prompt: str = "",
    seed: int = 0,
) -> list[str]:
    """The caption of each image: greedy, by beam search, or drawn at a temperature.

    Raises:
      UserError: a setting is out of range, or the prompt leaves no room.
    """
    config, weights = bundle.config, bundle.collections
    tokenizer, found = tokenizer_of(config.text.tokenizer), []
    begin = tokenizer.encode(prompt) if prompt else None
    for start in range(0, len(images), _BATCH):
        part = images[np.minimum(np.arange(start, start + min(_BATCH, len(images))), len(images) - 1)]
        how = {"bos": tokenizer.bos, "eos": tokenizer.eos, "prompt": begin}
        if temperature is not None:
            key = jax.random.fold_in(jax.random.key(seed), start)
            tokens = search.sample(
                config.model, weights, part, key, temperature=temperature, top_k=top_k, top_p=top_p, **how
            ).tokens
        elif beams == 1:
            tokens = search.greedy(config.model, weights, part, **how).tokens
        else:
            tokens = search.beam(config.model, weights, part, beams=beams, **how).tokens[:, 0]
        found += texts.decoded(tokenizer, np.asarray(tokens))[: len(images) - start]
    return found
