"""DoRA (Liu et al. 2024): magnitude and direction apart, m * (W + A B) / |W + A B|.

The norms are over the inputs of each output.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from kind_jax.adapters import lora
from kind_jax.config.transfer import TransferConfig

TRAINED: tuple[str, ...] = ()
_TINY = 1e-12  # a kernel that is zero (adaLN's at initialisation) has no direction


def _norm(kernel: Float[Array, "L d_in d_out"]) -> Float[Array, "L 1 d_out"]:
    return jnp.sqrt(jnp.sum(kernel**2, axis=1, keepdims=True) + _TINY)


def init(
    kernel: Float[Array, "L d_in d_out"], config: TransferConfig, key: PRNGKeyArray
) -> tuple[Float[Array, "L d_in d_out"], dict[str, Float[Array, ...]]]:
    """LoRA's A and B, and m = |W|."""
    kernel, arrays = lora.init(kernel, config, key)
    return kernel, {**arrays, "m": _norm(kernel)[:, 0, :]}


def merge(
    kernel: Float[Array, "L d_in d_out"], arrays: dict[str, Float[Array, ...]], config: TransferConfig
) -> Float[Array, "L d_in d_out"]:
    moved = lora.merge(kernel, arrays, config)
    # The norm counts as a constant in the backward pass (section 4.3 of the paper).
    return arrays["m"][:, None, :] * moved / jax.lax.stop_gradient(_norm(moved))
