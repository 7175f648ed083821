"""Rectified flow: a straight line from data (t = 0) to noise (t = 1)."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from kind_jax.config import DiffusionConfig

# Times below it weigh no more than it does where the model outputs the image, as in Li & He 2025 (section 4.3).
LEAST_TIME = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class RectifiedFlow:
    """x_t = (1 - t) * clean + t * noise, whose velocity dx/dt is noise - clean (Liu et al. 2022).

    Attributes:
      clean: whether the model outputs the clean image, and not the velocity (Li & He 2025).
      times: training times drawn uniformly, or as the sigmoid of a standard normal, which favours the middle
        (Esser et al. 2024, section 3.1).
    """

    times: Literal["uniform", "logit_normal"] = "logit_normal"
    clean: bool = False

    def draw_times(self, key: PRNGKeyArray, batch: int) -> Float[Array, " B"]:
        """float32 times strictly between 0 and 1."""
        if self.times == "logit_normal":
            return jax.nn.sigmoid(jax.random.normal(key, (batch,)))
        return jax.random.uniform(key, (batch,), minval=float(np.finfo(np.float32).tiny))

    def model_time(self, t: Float[Array, " B"]) -> Float[Array, " B"]:
        """What the model's time embedding sees, in [0, 1000]."""
        return 1000.0 * t

    def corrupt(
        self, clean: Float[Array, "B H W C"], noise: Float[Array, "B H W C"], t: Float[Array, " B"]
    ) -> Float[Array, "B H W C"]:
        """The point at time ``t`` of the line from ``clean`` to standard normal ``noise``."""
        t = t[:, None, None, None]
        return (1 - t) * clean + t * noise

    def losses(
        self,
        output: Float[Array, "B H W C"],
        clean: Float[Array, "B H W C"],
        noise: Float[Array, "B H W C"],
        t: Float[Array, " B"],
    ) -> dict[str, Float[Array, " B"]]:
        """Mean squared error of the velocity, as ``loss`` and as ``mse``; the same weight at every ``t``.

        Where the model outputs the image, that is its error over ``t``, or over :data:`LEAST_TIME` if this is more.
        """
        if self.clean:
            error = (clean - output.astype(jnp.float32)) / jnp.maximum(t, LEAST_TIME)[:, None, None, None]
        else:
            error = noise - clean - output.astype(jnp.float32)
        mse = jnp.mean(error**2, axis=(1, 2, 3))
        return {"loss": mse, "mse": mse}

    def velocity(
        self, output: Float[Array, "B H W C"], x: Float[Array, "B H W C"], t: Float[Array, ""]
    ) -> Float[Array, "B H W C"]:
        """dx/dt at the point ``x`` of time ``t`` > 0, from the model's output there; float32."""
        output = output.astype(jnp.float32)
        return (x - output) / t if self.clean else output


def make_flow(config: DiffusionConfig) -> RectifiedFlow:
    """The configured flow."""
    return RectifiedFlow(times=config.times, clean=config.prediction == "clean")
