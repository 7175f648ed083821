"""Images as networks see them. B: samples, H = W: image side, C: channels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kind_jax.config.images import ImagesConfig


def seen(config: ImagesConfig, images: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
    """Images in [-1, 1] as the network sees them: in its resolution, its channels, and normalised as it is used to."""
    if config.resolution is not None and images.shape[1:3] != (config.resolution,) * 2:
        shape = (config.resolution, config.resolution, images.shape[-1])
        images = jax.vmap(lambda image: jax.image.resize(image, shape, "linear", antialias=True))(images)
    if config.colour:
        images = jnp.broadcast_to(images, (*images.shape[:3], config.seen_channels))
    return normalised(config, images)


def normalised(config: ImagesConfig, images: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Images in [-1, 1] as the network is used to have them normalised."""
    if config.mean is None or config.std is None:
        return images
    mean, std = (jnp.asarray(values, jnp.float32)[None, None, None, :] for values in (config.mean, config.std))
    return ((images + 1) / 2 - mean) / std
