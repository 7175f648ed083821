"""Which of a source's groups knows a new class best."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from kind_jax import partition
from kind_jax.config import Config
from kind_jax.config.faster import unhurried
from kind_jax.data.dataset import open_dataset
from kind_jax.data.folder import FolderSource
from kind_jax.data.latents import LatentFiles, MemoryLatents
from kind_jax.data.sets import MemorySource, Source
from kind_jax.deploy.bundle import Bundle
from kind_jax.diffusing.task import DiffusionTask, Drawn
from kind_jax.diffusion.process import make_process
from kind_jax.nn.gate import Gate

IMAGES, DRAWS = 32, 4  # images of a group, and noisy copies of each


@functools.partial(jax.jit, static_argnums=0)
def _loss(config: Config, collections: partition.Collections, images: Float[Array, "B H W C"], row: Array) -> Array:
    """Mean denoising loss of images with one group's tailors on, the same noise and times for every row."""
    process, count = make_process(config.diffusion, config.model.learn_sigma), images.shape[0]
    noise_key, time_key = jax.random.split(jax.random.key(0))
    drawn = Drawn(
        clean=images,
        noise=jax.random.normal(noise_key, images.shape),
        t=process.draw_times(time_key, count),
        labels=jnp.zeros(count, jnp.int32),
        null=jnp.zeros(count, bool),
        no_embedding=jnp.ones(count, bool),
        gate=Gate(row.reshape(1, 1), jnp.ones((1, 1))),
    )
    return DiffusionTask(unhurried(config)).loss(collections, drawn).value


def _labels(records: Source) -> Int32[np.ndarray, " N"]:
    if isinstance(records, MemorySource | FolderSource | MemoryLatents | LatentFiles):
        return records.labels  # without reading an image
    chunks = (np.arange(i, min(i + 1024, len(records))) for i in range(0, len(records), 1024))
    return np.concatenate([records.gather(chunk)["label"] for chunk in chunks])


def nearest_groups(config: Config, source: Bundle) -> list[int]:
    """For each group of ``config``, the source's bank row with the lowest denoising loss on images of that group."""
    records = open_dataset(config.data, "train").source
    group = np.array(config.model.group_of_class)[_labels(records)]
    weights = jax.device_put(source.collections)
    nearest = []
    for wanted in range(config.model.num_groups):
        chosen = np.flatnonzero(group == wanted)[:IMAGES]
        images = jnp.asarray(records.gather(np.tile(np.resize(chosen, IMAGES), DRAWS))["image"])
        losses = [float(_loss(source.config, weights, images, jnp.asarray(row))) for row in range(len(source.groups))]
        nearest.append(int(np.argmin(losses)))
    return nearest
