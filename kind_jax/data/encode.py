"""Data sets to latents, on all devices of this machine. N: images, H, W, C: of images, h, w, c: of latents.

A device always gets as many images as ``batch`` says, the last ones repeated, so that it runs the very same program
whatever else takes part: the bytes that are written do not depend on the number of devices or hosts
(XLA:CPU of jaxlib 0.12 keeps that but for the last bit).
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from kind_jax.data.bad import Explains, check_share
from kind_jax.data.latent_files import Dtype
from kind_jax.data.latent_shards import Shards
from kind_jax.data.sets import Dataset
from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable
from kind_jax.vae import Vae, VaeConfig, encode

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Encoder:
    """Images to the moments of their latents, plain and mirrored, split over this process's devices."""

    def __init__(self, vae: Vae, image_shape: tuple[int, int, int], *, batch: int, dtype: Dtype) -> None:
        """Place the weights on every device.

        Args:
          image_shape: of the images, (H, W, C); grey ones are repeated for an autoencoder of colour.
          batch: images on one device at a time.
          dtype: of the result.

        Raises:
          UserError: the autoencoder is not for such images.
        """
        self.shape = latent_shape(vae.config, image_shape)
        devices = jax.local_devices()
        mesh = jax.make_mesh((len(devices),), ("images",), axis_types=(AxisType.Auto,), devices=devices)
        self._split = NamedSharding(mesh, PartitionSpec("images"))
        self._params = jax.device_put(vae.params, NamedSharding(mesh, PartitionSpec()))
        self._channels = vae.config.in_channels
        self._moments = jax.jit(functools.partial(_moments, vae.config, dtype), out_shardings=self._split)
        self.rows = batch * len(devices)

    def __call__(self, images: Float[np.ndarray, "N H W C"]) -> Float[np.ndarray, "N 2 2 h w c"]:
        """Moments of at most ``rows`` images."""
        rows = np.minimum(np.arange(self.rows), len(images) - 1)
        padded = np.broadcast_to(images, (*images.shape[:3], self._channels))[rows]
        return np.asarray(self._moments(self._params, jax.device_put(padded, self._split)))[: len(images)]


def latent_shape(config: VaeConfig, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(h, w, c) of the latents of images.

    Raises:
      UserError: the autoencoder is not for such images; the setting is named.
    """
    height, width, channels = image_shape
    if height % config.factor or width % config.factor:
        raise UserError(
            f"images are {height} x {width} pixels (data.size), but the VAE needs multiples of {config.factor}."
        )
    if channels not in (1, config.in_channels):
        raise UserError(
            f"images have {channels} channels (data.channels), but the VAE encodes images of {config.in_channels}."
        )
    return height // config.factor, width // config.factor, config.latent_channels


def _moments(
    config: VaeConfig, dtype: Dtype, params: dict[str, Any], images: Float[Array, "N H W C"]
) -> Float[Array, "N 2 2 h w c"]:
    both = [jnp.stack(encode(config, params, one), axis=1) for one in (images, images[:, :, ::-1])]
    return jnp.stack(both, axis=1).astype(dtype)


def encode_shards(
    dataset: Dataset,
    shards: Shards,
    numbers: Iterable[int],
    encoder: Encoder,
    *,
    limit: float,
    progress: Callable[[int], None],
) -> None:
    """Write some shards of a split, images being read and decoded while others are encoded.

    Args:
      numbers: of the shards.
      limit: ``data.skip_bad``, the share of the records that may be unreadable.
      progress: called with the number of images done.

    Raises:
      UserError: too many images cannot be read, latents are not finite, or a file cannot be written.
    """
    source, found, done = dataset.source, 0, 0
    blocks = [
        (number, np.arange(start, min(start + encoder.rows, shards.rows(number).stop)))
        for number in numbers
        for start in range(shards.rows(number).start, shards.rows(number).stop, encoder.rows)
    ]
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        batches = zip(blocks, _ahead(pool, lambda block: source.gather(block[1]), blocks, threads + 1), strict=True)
        for number, group in itertools.groupby(batches, key=lambda item: item[0][0]):
            with shards.writing(number) as shard:
                for (_, indices), batch in group:
                    good = batch["bad"] < 0 if "bad" in batch else np.ones(len(indices), bool)
                    for index in indices[~good].tolist():
                        assert isinstance(source, Explains)
                        shard.skipped.append(printable(source.explain(index), 500))
                        found += 1
                        check_share(found, shards.records, limit, lambda shard=shard: shard.skipped[-1])
                    if good.any():
                        moments = encoder(batch["image"][good])
                        if not np.isfinite(moments).all():
                            raise UserError(
                                f"latents of the records {indices[0]} to {indices[-1]} are not finite in "
                                f"{moments.dtype.name}; --dtype float32 holds larger ones."
                            )
                        shard.add(batch["label"][good], moments)
                    done += len(indices)
                    progress(done)


def _ahead(pool: Executor, work: Callable[[_Item], _Result], items: Iterable[_Item], depth: int) -> Iterator[_Result]:
    """``map(work, items)`` with at most ``depth`` results begun before they are asked for."""
    items = iter(items)
    begun = [pool.submit(work, item) for item in itertools.islice(items, depth)]
    while begun:
        result = begun.pop(0).result()
        begun += [pool.submit(work, item) for item in itertools.islice(items, 1)]
        yield result
