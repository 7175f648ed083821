"""Images of one class, a block at a time. D: devices.

Image n of a class is row n % ROWS of block n // ROWS of this class, whose noise follows from the seed, the class and
the block's number. A device always draws one whole block, with the very same program whatever the others do. So an
image follows from model, sampler, seed, class and number alone: neither the number of devices, nor how many images are
asked for, nor which other classes are, changes a bit of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Integer, UInt8

from kind_jax import sampling
from kind_jax.config import Config, SamplerConfig
from kind_jax.evaluating.generate import Drawing
from kind_jax.evaluating.pixels import quantise
from kind_jax.nn.gate import ClassGate
from kind_jax.vae import VaeConfig, decode

ROWS = 32
"""Images in a block; another number would be other images."""

_DECODED = 8  # latents decoded at a time, which bounds the memory


class Block(NamedTuple):
    """``number`` of a class's blocks."""

    of: int
    number: int


class Drawer:
    """Draws blocks, one on each device at a time."""

    def __init__(self, drawing: Drawing, devices: Sequence[Any] | None = None) -> None:
        """Place the weights on every device.

        Args:
          devices: None is all of this machine's.
        """
        devices = jax.local_devices() if devices is None else list(devices)
        self._drawing = drawing
        self._mesh = jax.make_mesh((len(devices),), ("blocks",), axis_types=(AxisType.Auto,), devices=devices)
        whole = NamedSharding(self._mesh, PartitionSpec())
        self._collections = jax.device_put(drawing.bundle.collections, whole)
        self._decoder = None if drawing.vae is None else jax.device_put(drawing.vae.params, whole)

    def __call__(self, blocks: Sequence[Block]) -> Iterator[tuple[Block, UInt8[np.ndarray, "32 H W C"]]]:
        """The pixels of blocks, in order; the next ones are drawn while the caller is busy with these.

        Raises:
          UserError: images that are not finite.
        """
        devices = self._mesh.size
        groups = [blocks[start : start + devices] for start in range(0, len(blocks), devices)]
        begun = self._begin(groups[0]) if groups else None
        for group, following in zip(groups, [*groups[1:], None], strict=True):
            images = np.asarray(begun).reshape(devices, ROWS, *self._drawing.shape)
            begun = None if following is None else self._begin(following)
            for block, own in zip(group, images, strict=False):  # the last group may be smaller
                sampling.check_finite(own, self._drawing.bundle.collections, self._drawing.sampler)
                yield block, quantise(own)

    def _begin(self, blocks: Sequence[Block]) -> Float[Array, "N H W C"]:
        drawing = self._drawing
        filled = [*blocks, *[blocks[-1]] * (self._mesh.size - len(blocks))]
        split = NamedSharding(self._mesh, PartitionSpec("blocks"))
        classes, numbers = (jax.device_put(np.array(column, np.uint32), split) for column in zip(*filled, strict=True))
        vae = None if drawing.vae is None else drawing.vae.config
        config, gates = drawing.bundle.config, drawing.bundle.gates
        return _drawn(
            config, drawing.sampler, gates, vae, self._mesh, self._collections, self._decoder,
            np.uint32(drawing.seed), classes, numbers,
        )  # fmt: skip


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _drawn(
    config: Config,
    sampler: SamplerConfig,
    gates: ClassGate,
    vae: VaeConfig | None,
    mesh: Mesh,
    collections: Any,
    decoder: Any,
    seed: Integer[Array, ""],
    classes: Integer[Array, " D"],
    numbers: Integer[Array, " D"],
) -> Float[Array, "N H W C"]:
    """A block on each device; by shard_map, so that each runs the program of one block, not a part of a larger one."""

    def block(collections: Any, decoder: Any, seed: Any, own: Any, number: Any) -> Any:
        labels: Int[Array, " B"] = jnp.broadcast_to(own[0].astype(jnp.int32), (ROWS,))
        gate, null = (gates(labels, jnp.full(ROWS, off)) for off in (False, True))
        images = sampling.draw_batch(config, sampler, collections, labels, gate, null, seed, number[0], own[0])
        if vae is None:
            return images
        to_images = functools.partial(decode, vae, decoder)
        parts = images.reshape(ROWS // _DECODED, _DECODED, *images.shape[1:])
        decoded = jax.lax.map(to_images, parts)
        return decoded.reshape(ROWS, *decoded.shape[2:])

    whole, split = PartitionSpec(), PartitionSpec("blocks")
    shared = jax.shard_map(
        block, mesh=mesh, in_specs=(whole, whole, whole, split, split), out_specs=split, check_vma=False
    )
    return shared(collections, decoder, seed, classes, numbers)
