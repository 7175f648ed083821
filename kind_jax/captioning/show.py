"""A picture of images with the captions that a model gives them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from kind_jax import partition
from kind_jax.captioning import texts
from kind_jax.captioning.config import CaptionRun
from kind_jax.captioning.decode import greedy
from kind_jax.data.sets import Dataset, gathered
from kind_jax.files import atomic_write_bytes
from kind_jax.images import to_uint8
from kind_jax.text.tokenizer import tokenizer_of
from kind_jax.train import hosts, sharding

COLUMNS, ROWS = 4, 4


def save(config: CaptionRun, weights: partition.Collections, dataset: Dataset, path: Path, mesh: Mesh) -> None:
    """Write images from all over a data set, each with its own caption and the greedy one; every host calls it."""
    chosen = np.asarray(texts.spread(len(dataset.source), COLUMNS * ROWS))
    records, chosen = gathered(dataset.source, chosen)
    images = records["image"]
    said = captions(config, weights, jax.device_put(images, sharding.replicated(mesh)))
    if hosts.is_first():
        own = texts.captions_of(dataset)
        atomic_write_bytes(path, picture(images, said, [own[i][0] for i in chosen.tolist()]))


def captions(config: CaptionRun, weights: partition.Collections, images: Float[Array, "N H W C"]) -> list[str]:
    """The greedy caption of each image."""
    tokenizer = tokenizer_of(config.text.tokenizer)
    found = greedy(config.model, weights, images, bos=tokenizer.bos, eos=tokenizer.eos)
    return texts.decoded(tokenizer, np.asarray(hosts.whole(found.tokens)))


def picture(
    images: Float[np.ndarray, "N H W C"], said: Sequence[str], own: Sequence[str] | None = None, columns: int = COLUMNS
) -> bytes:
    """PNG: images in rows, what is said about each below it, and in grey what was to be said."""
    pixels = to_uint8(images if images.shape[-1] in (1, 3) else images[..., :3])
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.7 * rows), layout="constrained")
    for i in range(len(images)):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(np.broadcast_to(pixels[i], (*pixels.shape[1:3], 3)), interpolation="nearest")
        axes.set_axis_off()
        text = textwrap.fill(_plain(said[i]), 30, max_lines=3) or "(nothing)"
        axes.set_title(text, fontsize=8, y=-0.02, va="top", color="black")
        if own is not None:
            axes.text(
                0.5, 1.03, textwrap.fill(_plain(own[i]), 30, max_lines=2), fontsize=7, color="0.45", ha="center",
                va="bottom", transform=axes.transAxes,
            )  # fmt: skip
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90)
    return out.getvalue()


def _plain(text: str) -> str:
    """A caption that no font stumbles over, and in which nothing is a formula."""
    return "".join(c if c.isprintable() and ord(c) < 0x2000 else "?" for c in text).replace("$", r"\$")
