"""Training of the judge. N: images, H W C: image shape, B: batch.

A loop in Python over one jitted step: inside a jitted loop XLA:CPU runs convolutions on one thread, several times
slower, and nothing could be shown before the end. The compiled program does not depend on the number of steps.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from kind_jax.evaluate import judge_net
from kind_jax.evaluate.judge_net import Moments, Params

BATCH = 64
_EPOCHS, _MOST_STEPS = 5.5, 4000
_FEWEST_STEPS, _FEWEST_STEPS_SMALL, _SMALL = 600, 250, 16  # steps, steps where no side has more than 16 pixels
_LEARNING_RATE, _WEIGHT_DECAY, _SMOOTHING = 3e-3, 5e-2, 0.1
_WARM_UP = 0.15  # share of the steps
_SHIFT = 1 / 8  # of the shorter side
_MEMORY = 0.95  # of the running moments, for each step
_SHOWN = 10  # steps between two calls of progress, which wait for the device


def default_steps(count: int, shape: tuple[int, int, int]) -> int:
    """Steps for ``count`` training images of ``shape`` (H, W, C): five and a half times all of them, but 4000 at most.

    At least 600, or 250 where no side has more than 16 pixels.
    """
    fewest = _FEWEST_STEPS if max(shape[:2]) > _SMALL else _FEWEST_STEPS_SMALL
    return min(max(math.ceil(_EPOCHS * count / BATCH), fewest), _MOST_STEPS)


def augment(images: Float[Array, "B H W C"], key: Key[Array, ""], flip: bool) -> Float[Array, "B H W C"]:
    """Shift each image by up to an eighth of its side, repeating its border; mirror half of them if ``flip``."""
    shift_key, flip_key = jax.random.split(key)
    reach = max(1, round(min(images.shape[1:3]) * _SHIFT))
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    starts = jax.random.randint(shift_key, (len(images), 2), 0, 2 * reach + 1)

    def crop(image: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(image, (start[0], start[1], jnp.zeros_like(start[0])), images.shape[1:])

    images = jax.vmap(crop)(padded, starts)
    if not flip:
        return images
    mirrored = jax.random.bernoulli(flip_key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def _schedule(step: Any, steps: Any) -> Any:
    # Not optax's, which wants the number of steps when it compiles: here one program serves any number.
    done = step / steps
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * (done - _WARM_UP) / (1 - _WARM_UP)))
    return _LEARNING_RATE * jnp.where(done < _WARM_UP, (step + 1) / (_WARM_UP * steps + 1), cosine)


def _optimizer(params: Params) -> optax.GradientTransformation:
    kernels = jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)
    return optax.chain(optax.scale_by_adam(b2=0.99), optax.add_decayed_weights(_WEIGHT_DECAY, kernels))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _step(
    graph: nnx.GraphDef,
    flip: bool,
    carry: tuple[Params, list[Moments], optax.OptState],
    batch: tuple[Float[Array, "B H W C"], Int[Array, " B"]],
    key: Key[Array, ""],
    step: Int[Array, ""],
    steps: Int[Array, ""],
) -> tuple[tuple[Params, list[Moments], optax.OptState], Float[Array, ""]]:
    params, running, state = carry
    images, labels = augment(batch[0], jax.random.fold_in(key, step), flip), batch[1]

    def loss_of(params: Params) -> tuple[Array, tuple[Array, list[Moments]]]:
        logits, moments = judge_net.apply_batch(graph, params, images)
        smooth = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), _SMOOTHING)
        return optax.softmax_cross_entropy(logits, smooth).mean(), (logits, moments)

    grads, (logits, moments) = jax.grad(loss_of, has_aux=True)(params)
    direction, state = _optimizer(params).update(grads, state, params)
    rate = _schedule(step, steps)
    params = jax.tree.map(lambda p, d: p - rate * d, params, direction)
    # As of the first step, so that no running moment ever holds a part of made-up ones.
    memory = jnp.minimum(_MEMORY, step / (step + 1.0))
    running = jax.tree.map(lambda old, new: memory * old + (1 - memory) * new, running, moments)
    return (params, running, state), (logits.argmax(axis=-1) == labels).mean()


def _batches(count: int, steps: int, seed: int) -> Iterator[Int[np.ndarray, " B"]]:
    """Which images each step sees: all of them in random order, then all again in another."""
    rng, waiting = np.random.default_rng(seed), np.zeros(0, np.int64)
    for _ in range(steps):
        while len(waiting) < BATCH:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[:BATCH]
        waiting = waiting[BATCH:]


def fit(
    graph: nnx.GraphDef,
    params: Params,
    images: Float[np.ndarray, "N H W C"],
    labels: Int[np.ndarray, " N"],
    *,
    seed: int,
    steps: int,
    flip: bool,
    progress: Callable[[int, float], None] = lambda done, accuracy: None,
) -> Params:
    """The weights after ``steps`` of AdamW with warm-up and a cosine schedule, norms folded.

    Args:
      flip: whether half of the images are mirrored.
      progress: called now and then with the steps done and the accuracy on the latest batches.
    """
    _, key = jax.random.split(jax.random.key(seed))
    moments = jax.eval_shape(functools.partial(judge_net.apply_batch, graph), params, images[:1])[1]
    running = jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), moments)
    carry, latest = (params, running, _optimizer(params).init(params)), []
    for step, rows in enumerate(_batches(len(images), steps, seed)):
        carry, right = _step(graph, flip, carry, (images[rows], labels[rows]), key, jnp.int32(step), jnp.int32(steps))
        latest.append(right)
        if (step + 1) % _SHOWN == 0 or step + 1 == steps:
            progress(step + 1, float(np.mean(jax.device_get(latest))))
            latest = []
    return judge_net.fold(graph, carry[0], carry[1])
