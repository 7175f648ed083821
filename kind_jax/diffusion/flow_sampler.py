"""Samplers of the flow: Euler and Heun on evenly spaced times from 1 (noise) to 0 (data)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kind_jax.diffusion.denoise import Denoise
from kind_jax.diffusion.flow import RectifiedFlow


def _velocity(
    flow: RectifiedFlow, denoise: Denoise, x: Float[Array, "B H W C"], time: Float[Array, ""]
) -> Float[Array, "B H W C"]:
    return flow.velocity(denoise(x, flow.model_time(jnp.full((x.shape[0],), time))), x, time)


def _interval(steps: int, i: Int[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Times at the start and the end of step ``i``."""
    grid = jnp.asarray(np.linspace(1.0, 0.0, steps + 1).astype(np.float32))
    return grid[i], grid[i + 1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Euler:
    """One model evaluation a step; the error shrinks like 1 / steps."""

    steps: int
    flow: RectifiedFlow

    def step(
        self,
        denoise: Denoise,
        x: Float[Array, "B H W C"],
        i: Int[Array, ""],
        noise: Float[Array, "B H W C"],
    ) -> Float[Array, "B H W C"]:
        """Follow the velocity at ``x``; ``noise`` is ignored."""
        del noise
        now, then = _interval(self.steps, i)
        return x + (then - now) * _velocity(self.flow, denoise, x, now)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heun:
    """Two model evaluations a step, one in the last; the error shrinks like 1 / steps^2 (Karras et al. 2022, alg. 1).

    The last step is Euler's, because models are not trained at t = 0 exactly.
    """

    steps: int
    flow: RectifiedFlow

    def step(
        self,
        denoise: Denoise,
        x: Float[Array, "B H W C"],
        i: Int[Array, ""],
        noise: Float[Array, "B H W C"],
    ) -> Float[Array, "B H W C"]:
        """Follow the mean of the velocities at both ends of the step; ``noise`` is ignored."""
        del noise
        now, then = _interval(self.steps, i)
        first = _velocity(self.flow, denoise, x, now)
        euler = x + (then - now) * first

        def correct(euler: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
            return x + (then - now) * 0.5 * (first + _velocity(self.flow, denoise, euler, then))

        # A real branch, so that the last step does not pay for an evaluation it would throw away.
        return jax.lax.cond(i < self.steps - 1, correct, lambda euler: euler, euler)
