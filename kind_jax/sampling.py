"""Drawing images from a model.

The class enters in two independent ways, so that each can be studied alone: ``labels`` choose the embedding, ``gate``
the tailors.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Integer

from kind_jax import finite, model, partition
from kind_jax.config import Config, SamplerConfig
from kind_jax.diffusion.guidance import guide
from kind_jax.diffusion.sampler import make_sampler, sample
from kind_jax.errors import UserError
from kind_jax.nn.gate import Gate

BATCH = 250


@functools.partial(jax.jit, static_argnames=("config", "sampler"))
def draw_batch(
    config: Config,
    sampler: SamplerConfig,
    collections: partition.Collections,
    labels: Int[Array, " B"],
    gate: Gate,
    null_gate: Gate,
    seed: Integer[Array, ""] | np.integer,
    number: Integer[Array, ""] | np.integer,
    stream: Integer[Array, ""] | None = None,
    guidance: Float[Array, ""] | np.floating | None = None,
) -> Float[Array, "B H W C"]:
    """One batch, under jit: its noise follows from the seed, its number, and the stream of numbers that this is one of.

    Args:
      stream: None is that of :func:`draw`.
      guidance: a scale in place of the sampler's; as an argument it may change without compiling anew.
    """
    settings = config.model
    key = jax.random.key(seed) if stream is None else jax.random.fold_in(jax.random.key(seed), stream)
    key = jax.random.fold_in(key, number)
    key_start, key_steps = jax.random.split(key)
    shape = (labels.shape[0], settings.size, settings.size, settings.channels)

    def denoise(x: Float[Array, "B H W C"], t: Float[Array, " B"]) -> Float[Array, "B H W out"]:
        if guidance is None and sampler.guidance == 1.0:
            return model.apply(settings, collections, x, t, labels, gate)
        null = jnp.full_like(labels, settings.num_classes)
        images, times, classes = (jnp.concatenate(pair) for pair in ((x, x), (t, t), (labels, null)))
        both = _stack_gates(gate, null_gate, labels.shape[0])
        output = model.apply(settings, collections, images, times, classes, both)
        conditional, unconditional = jnp.split(output, 2)
        channels = sampler.guidance_channels or settings.channels  # never the variance
        scale = sampler.guidance if guidance is None else guidance
        return guide(conditional, unconditional, scale, channels)

    start = jax.random.normal(key_start, shape)
    return sample(make_sampler(config.diffusion, sampler, settings.learn_sigma), denoise, start, key_steps)


def _stack_gates(first: Gate, second: Gate, batch: int) -> Gate:
    """One gate for the doubled batch; the narrower one is filled up with weight 0."""
    k = max(first.index.shape[1], second.index.shape[1])

    def widen(gate: Gate) -> Gate:
        fill = ((0, 0), (0, k - gate.index.shape[1]))
        return jax.tree.map(lambda a: jnp.broadcast_to(jnp.pad(a, fill), (batch, k)), gate)

    return jax.tree.map(lambda *pair: jnp.concatenate(pair), widen(first), widen(second))


def draw(
    config: Config,
    collections: partition.Collections,
    labels: Int[np.ndarray, " N"],
    gate: Gate,
    *,
    null_gate: Gate,
    seed: int,
    sampler: SamplerConfig | None = None,
    batch: int = BATCH,
    first: int = 0,
    sharding: NamedSharding | None = None,
) -> Float[np.ndarray, "N H W C"]:
    """Draw one image for each label, in batches of one compiled size.

    Args:
      labels: classes for the embedding; ``num_classes`` is the null class.
      gate: tailors to switch on, for N samples or for all alike.
      null_gate: tailors of the unconditional branch, used only where the sampler guides.
      sampler: None takes the config's.
      first: number of the first batch; the noise of each batch follows from the seed and the batch's number.
      sharding: splits a batch over devices; their number must divide ``batch``. It does not change the noise.

    Returns:
      float32, nominally in [-1, 1].

    Raises:
      UserError: no labels, or images that are not finite: a weight is not, or is so large that the model overflows.
    """
    count = len(labels)
    if count == 0:
        raise UserError("labels are empty, but at least one image must be asked for.")
    batch = min(batch, count)

    def part(a: Array | np.ndarray, start: int) -> Array:
        rows = np.minimum(np.arange(start, start + batch), count - 1)  # the last batch repeats its last sample
        if a.shape[0] != count:
            return jax.device_put(np.asarray(a), whole)
        return jax.device_put(np.asarray(a)[rows], sharding)

    sampler = sampler or config.sampler
    scale = None if sampler.guidance == 1.0 else np.float32(sampler.guidance)  # 1 is half of the work
    compiled = dataclasses.replace(sampler, guidance=1.0)  # one program for all other scales
    whole = None if sharding is None else NamedSharding(sharding.mesh, PartitionSpec())
    parts = []
    for i, start in enumerate(range(0, count, batch)):
        chunk = part(np.asarray(labels, np.int32), start)
        gates = (jax.tree.map(lambda a, start=start: part(a, start), g) for g in (gate, null_gate))
        number = np.uint32(first + i)
        images = draw_batch(config, compiled, collections, chunk, *gates, np.uint32(seed), number, None, scale)
        parts.append(_on_this_host(images))
        check_finite(parts[-1], collections, sampler)
    return np.concatenate(parts)[:count]


def check_finite(
    images: Float[np.ndarray, "B H W C"], collections: partition.Collections, sampler: SamplerConfig
) -> None:
    """Refuse images that are not finite.

    Raises:
      UserError: naming a weight that is not finite either, or else the largest one.
    """
    wrong = int(np.sum(~np.isfinite(images).reshape(len(images), -1).all(axis=1)))
    if not wrong:
        return
    finite.check(collections, "the model")
    name, value = finite.largest(collections)
    raise UserError(
        f"sampling gave values that are NaN or infinite in {wrong} of {len(images)} images although every weight is "
        f"finite: the model overflows (sampler.guidance is {sampler.guidance:g}; the largest weight is {value:.3g}, in "
        f"{name})."
    )


def _on_this_host(images: Float[Array, "B H W C"]) -> Float[np.ndarray, "B H W C"]:
    if images.is_fully_addressable:
        return np.asarray(images)
    return np.asarray(multihost_utils.process_allgather(images, tiled=True))
