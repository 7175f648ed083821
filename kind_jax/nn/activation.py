"""GELU with its tanh approximation, as in DiT."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def gelu(x: Float[Array, ...]) -> Float[Array, ...]:
    """0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))).

    What the backward pass keeps is the derivative: half of what differentiating the formula keeps (x and the tanh).
    """
    return jax.nn.gelu(x, approximate=True)


def _forward(x):
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    t = jnp.tanh(scale * (x + cubic * x**3))
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * scale * (1 + 3 * cubic * x * x)
    return 0.5 * x * (1 + t), slope


def _backward(slope, dy):
    return (dy * slope,)


gelu.defvjp(_forward, _backward)
