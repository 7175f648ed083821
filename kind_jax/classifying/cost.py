"""Arithmetic of a classifier, from shapes alone."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from kind_jax import flops, model, partition
from kind_jax.classifying import network
from kind_jax.config.networks import Network


@functools.lru_cache(maxsize=32)
def forward(config: Network) -> float:
    """FLOPs of the products and convolutions for one image."""

    def f(collections: partition.Collections) -> Any:
        images = jnp.zeros((1, config.size, config.size, config.channels))
        gate = network.gate_of(config, jnp.zeros(1, jnp.int32))
        return network.logits(config, collections, images, gate)[0]

    return flops.count(jax.make_jaxpr(f)(model.definition(config)[1]))


@functools.lru_cache(maxsize=32)
def head(config: Network) -> float:
    """FLOPs of the head alone for one image."""
    definition, shapes = model.definition(config)

    def features(collections: partition.Collections) -> Any:
        gate = network.gate_of(config, jnp.zeros(1, jnp.int32))
        images = jnp.zeros((1, config.seen_size, config.seen_size, config.seen_channels))
        return partition.join(definition, collections).features(images, gate)

    def f(collections: partition.Collections, seen: Any) -> Any:
        return partition.join(definition, collections).logits(seen)

    return flops.count(jax.make_jaxpr(f)(shapes, jax.eval_shape(features, shapes)))
