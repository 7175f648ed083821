"""What a training step carries from one call to the next."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from kind_jax import adapters, model, partition
from kind_jax.config import Config
from kind_jax.train.freeze import moving
from kind_jax.train.optimizer import learning_rate, make_optimizer


class TrainState(NamedTuple):
    """Weights, their moving average, optimizer state and the number of finished steps.

    ``ema`` holds only the leaves that train; a frozen one is its own average.
    """

    collections: partition.Collections
    ema: partition.Collections
    opt: Any
    step: Int[Array, ""]


def start(config: Config, collections: partition.Collections) -> TrainState:
    """The state before the first step, with ``collections`` (arrays or ShapeDtypeStructs) as weights."""
    tx = make_optimizer(config.optimizer, learning_rate(config.optimizer, config.train.steps))
    # A copy: the average must not share buffers with the weights, which the step donates.
    ema = jax.tree.map(jnp.copy, moving(config.optimizer, collections))
    return TrainState(collections, ema, tx.init(collections), jnp.zeros((), jnp.int32))


def abstract(config: Config) -> TrainState:
    """Shapes and dtypes of the state; takes no memory."""
    collections = model.definition(config.model)[1]
    if config.transfer.method in adapters.METHODS:
        collections = jax.eval_shape(lambda c: adapters.attach(config.transfer, c), collections)
    return jax.eval_shape(lambda c: start(config, c), collections)


def averaged(state: TrainState) -> partition.Collections:
    """The weights to sample with: the moving average where there is one."""
    return partition.overlay(state.collections, state.ema)
