"""Noise schedules of the discrete Gaussian process, in float64 NumPy.

``beta[t]`` is the variance added at time ``t``; ``alpha_bar[t]``, the running product of ``1 - beta``, is the share of
the data's variance that is left after it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from kind_jax.errors import UserError

_LINEAR_ENDS = (0.1, 20.0)  # beta * T: DDPM's 1e-4 and 0.02 at T = 1000
_COSINE_OFFSET = 0.008  # keeps beta[0] large enough to matter beside 8-bit quantisation
_COSINE_CAP = 0.999  # alpha_bar must not reach 0, which the epsilon parametrisation divides by


def linear_betas(steps: int) -> Float[np.ndarray, " T"]:
    """Linear schedule (DDPM, Ho et al. 2020), scaled by 1000 / T so that any T destroys the data equally.

    Raises:
      UserError: so few steps that a beta would reach 1.
    """
    first, last = _LINEAR_ENDS
    if steps <= last:
        raise UserError(
            f"diffusion.train_steps is {steps}, but it must be more than {last:.0f} for diffusion.schedule 'linear'."
        )
    return np.linspace(first / steps, last / steps, steps, dtype=np.float64)


def cosine_betas(steps: int) -> Float[np.ndarray, " T"]:
    """Cosine schedule (Nichol & Dhariwal 2021, eq. 17), each beta at most 0.999."""
    time = np.arange(steps + 1, dtype=np.float64) / steps
    alpha_bar = np.cos((time + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * np.pi / 2) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], _COSINE_CAP)


def make_betas(schedule: Literal["linear", "cosine"], steps: int) -> Float[np.ndarray, " T"]:
    """The betas of a schedule by name."""
    return linear_betas(steps) if schedule == "linear" else cosine_betas(steps)


def space_timesteps(total: int, count: int) -> Int[np.ndarray, " N"]:
    """``count`` of the times 0 .. total-1, ascending and evenly spread with both ends included (ADM's respacing).

    One step alone is the noisiest time, because that is where sampling starts.

    Raises:
      UserError: more steps than there are times.
    """
    if count > total:
        raise UserError(f"sampler.steps is {count}, but it must be at most diffusion.train_steps, which is {total}.")
    if count == 1:
        return np.array([total - 1])
    # A running sum, not multiples: where a time falls between two integers, its rounding error is ADM's too.
    stride = (total - 1) / (count - 1)
    return np.round(np.cumsum(np.append(0.0, np.full(count - 1, stride)))).astype(np.int64)


def respace_betas(betas: Float[np.ndarray, " T"], kept: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Betas of the shorter process that visits only the ``kept`` times, with ``alpha_bar`` unchanged there."""
    alpha_bar = np.cumprod(1 - betas)[kept]
    return 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])
