"""Samplers of the Gaussian process: DDPM and DDIM."""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kind_jax.diffusion.denoise import Denoise
from kind_jax.diffusion.gaussian import GaussianDiffusion
from kind_jax.diffusion.tables import Table, gather


def _times(diffusion: GaussianDiffusion, x: Float[Array, "B H W C"], i: Int[Array, ""]) -> Int[Array, " B"]:
    # Step 0 is the noisiest time, the last in the tables.
    return jnp.full((x.shape[0],), diffusion.steps - 1 - i)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DDPM:
    """Ancestral sampling (DDPM, algorithm 2) over the times of a respaced process."""

    diffusion: GaussianDiffusion

    @property
    def steps(self) -> int:
        return self.diffusion.steps

    def step(
        self,
        denoise: Denoise,
        x: Float[Array, "B H W C"],
        i: Int[Array, ""],
        noise: Float[Array, "B H W C"],
    ) -> Float[Array, "B H W C"]:
        """Sample p(x_prev | x); the last step returns the mean."""
        diffusion = self.diffusion
        t = _times(diffusion, x, i)
        predicted, variance = diffusion.split(denoise(x, diffusion.model_time(t)))
        clean, _ = diffusion.clean_and_noise(predicted, x, t)
        scale = jnp.exp(0.5 * diffusion.log_variance(variance, t))
        mean = diffusion.posterior_mean(clean, x, t)
        return jnp.where(i == self.steps - 1, mean, mean + scale * noise)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DDIM:
    """DDIM (Song et al. 2021, eq. 12 and 16): ``eta`` 0 is deterministic, 1 has the variance of DDPM's posterior.

    A learned variance is not used.
    """

    diffusion: GaussianDiffusion
    eta: float = 0.0

    @property
    def steps(self) -> int:
        return self.diffusion.steps

    @functools.cached_property
    def _coefficients(self) -> tuple[Table, Table, Table]:
        """Weights of clean, predicted noise and fresh noise over time."""
        now, prev = self.diffusion.tables.alpha_bar, self.diffusion.tables.alpha_bar_prev
        variance = self.eta**2 * (1 - prev) / (1 - now) * (1 - now / prev)
        return np.sqrt(prev), np.sqrt(np.maximum(1 - prev - variance, 0)), np.sqrt(variance)

    def step(
        self,
        denoise: Denoise,
        x: Float[Array, "B H W C"],
        i: Int[Array, ""],
        noise: Float[Array, "B H W C"],
    ) -> Float[Array, "B H W C"]:
        """Move ``x`` to the next cleaner time; ``noise`` is ignored where ``eta`` is 0."""
        t = _times(self.diffusion, x, i)
        predicted, _ = self.diffusion.split(denoise(x, self.diffusion.model_time(t)))
        clean, direction = self.diffusion.clean_and_noise(predicted, x, t)
        to_clean, to_direction, to_noise = self._coefficients
        moved = gather(to_clean, t) * clean + gather(to_direction, t) * direction
        return moved if self.eta == 0 else moved + gather(to_noise, t) * noise
