"""Training of the judge: one jitted loop, so that Python does not count. N: images, H W C: image shape, B: batch."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from kind_jax.evaluate import judge_net
from kind_jax.evaluate.judge_net import Params

BATCH = 128
_LEARNING_RATE, _WEIGHT_DECAY, _SMOOTHING, _NOISE = 4e-3, 5e-2, 0.1, 0.1


def augment(images: Float[Array, "B H W C"], key: Key[Array, ""]) -> Float[Array, "B H W C"]:
    """Shift each image by up to one pixel either way, repeating its border, and add a little noise."""
    shift_key, noise_key = jax.random.split(key)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    starts = jax.random.randint(shift_key, (len(images), 2), 0, 3)

    def crop(image: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(image, (start[0], start[1], jnp.zeros_like(start[0])), images.shape[1:])

    return jax.vmap(crop)(padded, starts) + _NOISE * jax.random.normal(noise_key, images.shape)


@functools.partial(jax.jit, static_argnums=0)
def fit(
    graph: nnx.GraphDef,
    params: Params,
    images: Float[Array, "N H W C"],
    labels: Int[Array, " N"],
    key: Key[Array, ""],
    steps: int | Int[Array, ""],
) -> Params:
    """The weights after ``steps`` of AdamW with a cosine schedule on random batches."""

    def schedule(step: Any) -> Array:
        # Not optax's, which wants the number of steps when it compiles: here one program serves any number.
        return _LEARNING_RATE * 0.5 * (1 + jnp.cos(jnp.pi * step / steps))

    optimizer = optax.adamw(schedule, weight_decay=_WEIGHT_DECAY)

    def loss_of(params: Params, batch: Array, targets: Array) -> Array:
        _, logits = judge_net.apply(graph, params, batch)
        smooth = optax.smooth_labels(jax.nn.one_hot(targets, logits.shape[-1]), _SMOOTHING)
        return optax.softmax_cross_entropy(logits, smooth).mean()

    def step(i: Array, carry: tuple[Any, optax.OptState]) -> tuple[Any, optax.OptState]:
        params, moments = carry
        pick_key, augment_key = jax.random.split(jax.random.fold_in(key, i))
        picks = jax.random.randint(pick_key, (BATCH,), 0, len(images))
        grads = jax.grad(loss_of)(params, augment(images[picks], augment_key), labels[picks])
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments

    return jax.lax.fori_loop(0, steps, step, (params, optimizer.init(params)))[0]
