"""Every coefficient that the Gaussian process needs, tabulated over time."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Table = Float[np.ndarray, " T"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """float64 tables over the T times of one process (notation of DDPM, Ho et al. 2020).

    Attributes:
      alpha_bar, alpha_bar_prev: share of the data's variance at this time and at the previous, cleaner one.
      signal, sigma: x_t = signal * clean + sigma * noise.
      posterior_clean, posterior_noisy: mean of q(x_prev | x_t, clean) = posterior_clean * clean +
        posterior_noisy * x_t (DDPM eq. 7).
      min_log_variance: log variance of that posterior; its first entry, which is log 0, repeats the second.
      max_log_variance: log beta, the largest sensible variance of p(x_prev | x_t).
    """

    alpha_bar: Table
    alpha_bar_prev: Table
    signal: Table
    sigma: Table
    posterior_clean: Table
    posterior_noisy: Table
    min_log_variance: Table
    max_log_variance: Table


def make_tables(betas: Table) -> Tables:
    """Tabulate the process with these betas, each in (0, 1)."""
    alpha_bar = np.cumprod(1 - betas)
    alpha_bar_prev = np.append(1.0, alpha_bar[:-1])
    variance = betas * (1 - alpha_bar_prev) / (1 - alpha_bar)
    # A process of one step has no second entry to repeat, and draws no noise either: any finite value does.
    variance[0] = variance[1] if len(betas) > 1 else betas[0]
    return Tables(
        alpha_bar=alpha_bar,
        alpha_bar_prev=alpha_bar_prev,
        signal=np.sqrt(alpha_bar),
        sigma=np.sqrt(1 - alpha_bar),
        posterior_clean=betas * np.sqrt(alpha_bar_prev) / (1 - alpha_bar),
        posterior_noisy=(1 - alpha_bar_prev) * np.sqrt(1 - betas) / (1 - alpha_bar),
        min_log_variance=np.log(variance),
        max_log_variance=np.log(betas),
    )


def gather(table: Table, t: Int[Array, " B"]) -> Float[Array, "B 1 1 1"]:
    """``table[t]`` in float32, shaped to multiply images; ``t`` may be traced."""
    return jnp.asarray(table.astype(np.float32))[t][:, None, None, None]
