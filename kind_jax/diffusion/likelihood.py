"""The two likelihood terms of the variational bound, in nats."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

_HALF_BIN = 1 / 255  # pixels have 256 levels in [-1, 1]
_EDGE = 0.999  # beyond it a pixel belongs to the outermost bin, which reaches to infinity
_TINY = 1e-12


def normal_kl(
    mean_p: Float[Array, "*s"],
    log_variance_p: Float[Array, "*#s"],
    mean_q: Float[Array, "*s"],
    log_variance_q: Float[Array, "*#s"],
) -> Float[Array, "*s"]:
    """KL(p || q) of two Gaussians, elementwise."""
    return 0.5 * (
        log_variance_q
        - log_variance_p
        + jnp.exp(log_variance_p - log_variance_q)
        + (mean_p - mean_q) ** 2 * jnp.exp(-log_variance_q)
        - 1
    )


def _normal_cdf(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    # The tanh approximation, not erf: ADM and DiT report losses with it.
    return 0.5 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def discretized_log_likelihood(
    x: Float[Array, "*s"], mean: Float[Array, "*s"], log_variance: Float[Array, "*#s"]
) -> Float[Array, "*s"]:
    """Log probability of the 8-bit level of each pixel ``x`` in [-1, 1] under a Gaussian (DDPM eq. 13)."""
    precision = jnp.exp(-0.5 * log_variance)
    below_upper = _normal_cdf((x - mean + _HALF_BIN) * precision)
    below_lower = _normal_cdf((x - mean - _HALF_BIN) * precision)
    probability = jnp.where(x < -_EDGE, below_upper, jnp.where(x > _EDGE, 1 - below_lower, below_upper - below_lower))
    return jnp.log(jnp.maximum(probability, _TINY))
