"""The autoencoder as pure functions of a config and a nested dictionary of arrays.

B: images in a batch, N: images, H, W: pixels, h, w: H / factor, W / factor, C, c: channels of images and latents.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jaxtyping import Array, Float

from kind_jax import partition
from kind_jax.errors import UserError
from kind_jax.nn.init import Initializer, ShapesOnly
from kind_jax.vae.config import VaeConfig, to_document
from kind_jax.vae.network import Autoencoder

Precision = Literal["float32", "bfloat16"]

# exp(logvar / 2) stays a float16 that is neither 0 nor infinite; diffusers clips to the same bounds.
_LOGVAR = (-30.0, 20.0)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Vae:
    """An autoencoder in hand.

    Attributes:
      params: nested dictionaries of float32 arrays.
      fingerprint: SHA-256 of config and weights in hexadecimal, whatever file they come from.
      origin: where they were read from.
    """

    config: VaeConfig
    params: dict[str, Any]
    fingerprint: str
    origin: Path


@functools.lru_cache(maxsize=8)
def definition(config: VaeConfig) -> tuple[nnx.GraphDef, Any]:
    """The module's definition and its parameters as ShapeDtypeStructs; takes no memory."""
    graphdef, state = nnx.split(Autoencoder(config, init=ShapesOnly()), nnx.Param)
    return graphdef, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), nnx.to_pure_dict(state))


def init(config: VaeConfig, seed: int) -> dict[str, Any]:
    """Random parameters as NumPy arrays, the same on every machine."""
    return nnx.to_pure_dict(nnx.split(Autoencoder(config, init=Initializer(seed)), nnx.Param)[1])


def encode(
    config: VaeConfig,
    params: Mapping[str, Any],
    images: Float[Array, "B H W C"],
    *,
    dtype: Precision = "float32",
) -> tuple[Float[Array, "B h w c"], Float[Array, "B h w c"]]:
    """Mean and log-variance of the latents of images, float32, not scaled.

    A model's latents are ``(mean + exp(logvar / 2) * noise - shift_factor) * scaling_factor``.

    Args:
      images: in [-1, 1]; H and W are multiples of ``config.factor``.
      dtype: that activations and products are in; bfloat16 is faster on accelerators, and less exact.

    Raises:
      UserError: another number of channels, or sizes that are no multiples.
    """
    _, H, W, C = images.shape
    if config.in_channels != C:
        raise UserError(f"images have {C} channels, but the VAE encodes images of {config.in_channels}.")
    if H % config.factor or W % config.factor or not H or not W:
        raise UserError(f"images are {H}x{W} pixels, but both must be multiples of {config.factor} for the VAE.")
    return _encode(config, dtype, dict(params), images)


def decode(
    config: VaeConfig,
    params: Mapping[str, Any],
    latents: Float[Array, "B h w c"],
    *,
    dtype: Precision = "float32",
) -> Float[Array, "B H W C"]:
    """Images, nominally in [-1, 1], of latents in a model's scale (see :func:`encode`).

    Raises:
      UserError: another number of channels.
    """
    if latents.shape[-1] != config.latent_channels:
        raise UserError(
            f"latents have {latents.shape[-1]} channels, but the VAE decodes latents of {config.latent_channels}."
        )
    return _decode(config, dtype, dict(params), latents)


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def _encode(
    config: VaeConfig, dtype: Precision, params: dict[str, Any], images: Float[Array, "B H W C"]
) -> tuple[Float[Array, "B h w c"], Float[Array, "B h w c"]]:
    module = nnx.merge(definition(config)[0], params)
    mean, logvar = jnp.split(module.encode(images.astype(dtype)).astype(jnp.float32), 2, axis=-1)
    return mean, jnp.clip(logvar, *_LOGVAR)


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def _decode(
    config: VaeConfig, dtype: Precision, params: dict[str, Any], latents: Float[Array, "B h w c"]
) -> Float[Array, "B H W C"]:
    z = latents / config.scaling_factor + (config.shift_factor or 0.0)
    module = nnx.merge(definition(config)[0], params)
    return module.decode(z.astype(dtype)).astype(jnp.float32)


def decoder(
    vae: Vae, *, batch: int = 8, sharding: NamedSharding | None = None, dtype: Precision = "float32"
) -> Callable[[Float[np.ndarray, "N h w c"]], Float[np.ndarray, "N H W C"]]:
    """A function that decodes any number of latents, with the weights placed once.

    Args:
      batch: latents that a device decodes at a time, which bounds the memory: at 256x256 pixels, Stable Diffusion's
        takes 0.24 GB each.
      sharding: splits the first axis of a batch over the devices of a mesh; None is this machine's first device.
    """
    if batch < 1:
        raise UserError(f"batch of a VAE is {batch}, but it must be 1 or more.")
    split: Sharding = SingleDeviceSharding(jax.local_devices()[0]) if sharding is None else sharding
    whole = split if sharding is None else NamedSharding(sharding.mesh, PartitionSpec())
    params = jax.device_put(vae.params, whole)
    devices = len(split.device_set)

    def run(latents: Float[np.ndarray, "N h w c"]) -> Float[np.ndarray, "N H W C"]:
        if len(latents) == 0:
            raise UserError("latents to be decoded are 0, but they must be at least 1.")
        width = min(batch, -(-len(latents) // devices)) * devices
        parts = []
        for start in range(0, len(latents), width):
            rows = np.minimum(np.arange(start, start + width), len(latents) - 1)  # the last batch repeats its last
            part = jax.device_put(np.asarray(latents[rows], np.float32), split)
            parts.append(np.asarray(decode(vae.config, params, part, dtype=dtype)))
        return np.concatenate(parts)[: len(latents)]

    return run


def decode_in_batches(
    vae: Vae, latents: Float[np.ndarray, "N h w c"], batch: int = 8, *, dtype: Precision = "float32"
) -> Float[np.ndarray, "N H W C"]:
    """Images of latents in a model's scale, ``batch`` at a time on one device; see :func:`decoder`.

    Raises:
      UserError: no latents, another number of channels, or a batch below 1.
    """
    return decoder(vae, batch=batch, dtype=dtype)(latents)


def fingerprint(config: VaeConfig, params: Mapping[str, Any]) -> str:
    """SHA-256 over the config, and over names, shapes and values of all arrays."""
    digest = hashlib.sha256(json.dumps(to_document(config), sort_keys=True).encode())
    for name, leaf in partition.flatten(params).items():
        array = np.ascontiguousarray(leaf)
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
