"""LoRA (Hu et al. 2022): W + scale * A B, with B = 0 at the start."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from kind_jax.config.transfer import TransferConfig

TRAINED: tuple[str, ...] = ()


def init(
    kernel: Float[Array, "L d_in d_out"], config: TransferConfig, key: PRNGKeyArray
) -> tuple[Float[Array, "L d_in d_out"], dict[str, Float[Array, ...]]]:
    """A uniform in ±1/sqrt(d_in) (Kaiming with a = sqrt 5, as in the reference code), B zero."""
    depth, d_in, d_out = kernel.shape
    a = jax.random.uniform(key, (depth, d_in, config.rank), kernel.dtype, -(d_in**-0.5), d_in**-0.5)
    return kernel, {"a": a, "b": jnp.zeros((depth, config.rank, d_out), kernel.dtype)}


def merge(
    kernel: Float[Array, "L d_in d_out"], arrays: dict[str, Float[Array, ...]], config: TransferConfig
) -> Float[Array, "L d_in d_out"]:
    return kernel + config.scale * (arrays["a"] @ arrays["b"])
