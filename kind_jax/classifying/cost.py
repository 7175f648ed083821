"""Arithmetic of a classifier, from shapes alone."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from kind_jax import model, partition
from kind_jax.classifying import network
from kind_jax.config.networks import Network


@functools.lru_cache(maxsize=32)
def forward(config: Network) -> float:
    """FLOPs of the products and convolutions for one image."""

    def f(collections: partition.Collections) -> Any:
        images = jnp.zeros((1, config.size, config.size, config.channels))
        gate = network.gate_of(config, jnp.zeros(1, jnp.int32))
        return network.logits(config, collections, images, gate)[0]

    return _count(jax.make_jaxpr(f)(model.definition(config)[1]).jaxpr)


def _count(jaxpr: Any) -> float:
    """Two for each multiply-add of a program, and of those inside it; the body of a scan counts as often as it runs."""
    total = 0.0
    for equation in jaxpr.eqns:
        name, out = equation.primitive.name, equation.outvars[0].aval
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval
            total += 2.0 * out.size * math.prod(left.shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            total += 2.0 * out.size * kernel.size / kernel.shape[-1]
        times = equation.params["length"] if name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += times * _count(inner)
    return total
