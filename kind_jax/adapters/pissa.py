"""PiSSA (Meng et al. 2024): the leading singular components of W are trained, the residual is frozen."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from kind_jax.config.transfer import TransferConfig

TRAINED: tuple[str, ...] = ()


def init(
    kernel: Float[Array, "L d_in d_out"], config: TransferConfig, key: PRNGKeyArray
) -> tuple[Float[Array, "L d_in d_out"], dict[str, Float[Array, ...]]]:
    """A = U_r sqrt(S_r), B = sqrt(S_r) V_r; the kernel becomes W - A B."""
    del key
    u, s, v = jnp.linalg.svd(kernel, full_matrices=False)
    root = jnp.sqrt(s[:, : config.rank])
    a, b = u[:, :, : config.rank] * root[:, None, :], root[:, :, None] * v[:, : config.rank, :]
    return kernel - a @ b, {"a": a, "b": b}


def merge(
    kernel: Float[Array, "L d_in d_out"], arrays: dict[str, Float[Array, ...]], config: TransferConfig
) -> Float[Array, "L d_in d_out"]:
    del config
    return kernel + arrays["a"] @ arrays["b"]
