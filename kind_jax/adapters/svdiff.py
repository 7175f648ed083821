"""SVDiff (Han et al. 2023): only shifts of the singular values are trained, U diag(relu(s + delta)) V."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from kind_jax.config.transfer import TransferConfig

TRAINED = ("delta",)


def init(
    kernel: Float[Array, "L d_in d_out"], config: TransferConfig, key: PRNGKeyArray
) -> tuple[Float[Array, "L d_in d_out"], dict[str, Float[Array, ...]]]:
    """The SVD of W, and delta = 0."""
    del config, key
    u, s, v = jnp.linalg.svd(kernel, full_matrices=False)
    return kernel, {"u": u, "s": s, "v": v, "delta": jnp.zeros_like(s)}


def merge(
    kernel: Float[Array, "L d_in d_out"], arrays: dict[str, Float[Array, ...]], config: TransferConfig
) -> Float[Array, "L d_in d_out"]:
    """Adds the change to W instead of rebuilding it, so that delta = 0 is W to the last bit."""
    del config
    change = jax.nn.relu(arrays["s"] + arrays["delta"]) - arrays["s"]
    return kernel + (arrays["u"] * change[:, None, :]) @ arrays["v"]
