"""The grids of samples that a run leaves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kind_jax import model, partition, sampling
from kind_jax.config import Config
from kind_jax.errors import UserError
from kind_jax.images import grid, save_png
from kind_jax.train import hosts, sharding
from kind_jax.vae import decode_in_batches, pictures

ROWS, COLUMNS = 6, 10


def save_samples(
    config: Config,
    weights: partition.Collections,
    mesh: Mesh,
    path: Path,
    classes: Sequence[int] | None = None,
    groups: tuple[int, ...] | None = None,
) -> None:
    """Class-conditional samples of these weights, a column for each of up to ten classes, decoded if latents.

    Args:
      classes: None is all.
      groups: whose tailors the weights have, in the order of the bank; None is all.
    """
    served = np.arange(config.model.num_classes) if classes is None else np.asarray(classes)
    count = len(served)
    columns = served[np.unique(np.linspace(0, count - 1, min(COLUMNS, count)).astype(np.int32))].astype(np.int32)
    labels = np.tile(columns, ROWS)
    gates = model.class_gate(config.model, groups)
    try:
        images = sampling.draw(
            config, weights, labels, gates(jnp.asarray(labels), jnp.zeros(len(labels), bool)),
            null_gate=gates(jnp.asarray(labels), jnp.ones(len(labels), bool)), seed=config.train.seed,
            sharding=sharding.replicated(mesh),
        )  # fmt: skip
    except UserError as e:  # no reason to end a run that has begun: the loss decides about that
        if hosts.is_first():
            print(f"there are no samples of this step: {e}", file=sys.stderr, flush=True)
        return
    if not hosts.is_first():
        return
    images = _decoded(config, images)
    visible = images if images.shape[-1] in (1, 3) else images[..., :3]  # latents: three of their channels
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(path, grid(visible, len(columns), scale=-(-48 // images.shape[1])))


def _decoded(config: Config, images: np.ndarray) -> np.ndarray:
    """Pictures of latents if the config names a VAE, which is read anew: it does not stay in memory between grids."""
    try:
        vae = pictures.choose(None, config)
    except UserError as e:  # no reason to end a run that has begun
        print(f"samples are not decoded: {e}", file=sys.stderr, flush=True)
        return images
    return images if vae is None else decode_in_batches(vae, images)
