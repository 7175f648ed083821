"""The discrete Gaussian diffusion of DDPM, Improved DDPM, ADM and DiT."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kind_jax.config import DiffusionConfig
from kind_jax.diffusion.likelihood import discretized_log_likelihood, normal_kl
from kind_jax.diffusion.schedule import make_betas, respace_betas, space_timesteps
from kind_jax.diffusion.tables import Tables, gather, make_tables


def _per_sample(x: Float[Array, "B H W C"]) -> Float[Array, " B"]:
    return x.mean(axis=(1, 2, 3))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GaussianDiffusion:
    """x_t = sqrt(alpha_bar_t) * clean + sqrt(1 - alpha_bar_t) * noise at the integer times 0 <= t < T.

    Attributes:
      betas: variance added at each time.
      times: what the model's time embedding sees at each time, in [0, 1000).
      prediction: whether the model outputs the noise (DDPM) or v = signal * noise - sigma * clean
        (Salimans & Ho 2022).
      learn_sigma: whether the second half of the model's output channels interpolates the log variance of
        p(x_prev | x_t) between its bounds (Improved DDPM, eq. 15).
    """

    betas: Float[np.ndarray, " T"]
    times: Float[np.ndarray, " T"]
    prediction: Literal["epsilon", "v"] = "epsilon"
    learn_sigma: bool = True

    @property
    def steps(self) -> int:
        return len(self.betas)

    @functools.cached_property
    def tables(self) -> Tables:
        return make_tables(self.betas)

    def draw_times(self, key: PRNGKeyArray, batch: int) -> Int[Array, " B"]:
        """Uniform int32 times."""
        return jax.random.randint(key, (batch,), 0, self.steps)

    def model_time(self, t: Int[Array, " B"]) -> Float[Array, " B"]:
        """What the model's time embedding sees, in [0, 1000)."""
        return jnp.asarray(self.times.astype(np.float32))[t]

    def corrupt(
        self, clean: Float[Array, "B H W C"], noise: Float[Array, "B H W C"], t: Int[Array, " B"]
    ) -> Float[Array, "B H W C"]:
        """Sample q(x_t | clean), with standard normal ``noise``."""
        return gather(self.tables.signal, t) * clean + gather(self.tables.sigma, t) * noise

    def losses(
        self,
        output: Float[Array, "B H W C_out"],
        clean: Float[Array, "B H W C"],
        noise: Float[Array, "B H W C"],
        t: Int[Array, " B"],
    ) -> dict[str, Float[Array, " B"]]:
        """L_hybrid of Improved DDPM as DiT trains it: ``loss`` = ``mse`` + ``vb`` (bits per dimension).

        ``vb`` is absent without ``learn_sigma``; its gradient reaches only the variance channels.
        """
        predicted, variance = self.split(output)
        signal, sigma = gather(self.tables.signal, t), gather(self.tables.sigma, t)
        target = noise if self.prediction == "epsilon" else signal * noise - sigma * clean
        mse = _per_sample((target - predicted) ** 2)
        if variance is None:
            return {"loss": mse, "mse": mse}
        vb = self._variational_bound(jax.lax.stop_gradient(predicted), variance, clean, noise, t)
        return {"loss": mse + vb, "mse": mse, "vb": vb}

    def split(
        self, output: Float[Array, "B H W C_out"]
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B H W C"] | None]:
        """The model's output in float32 as (prediction, variance channels or None)."""
        output = output.astype(jnp.float32)
        if not self.learn_sigma:
            return output, None
        predicted, variance = jnp.split(output, 2, axis=-1)
        return predicted, variance

    def clean_and_noise(
        self, predicted: Float[Array, "B H W C"], x: Float[Array, "B H W C"], t: Int[Array, " B"]
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B H W C"]]:
        """The (clean, noise) that a prediction at ``x`` implies; neither is clipped."""
        signal, sigma = gather(self.tables.signal, t), gather(self.tables.sigma, t)
        if self.prediction == "v":
            return signal * x - sigma * predicted, sigma * x + signal * predicted
        # The quotients are tabulated in float64: x and noise nearly cancel where the signal is faint.
        over_signal = gather(1 / self.tables.signal, t)
        noise_over_signal = gather(self.tables.sigma / self.tables.signal, t)
        return over_signal * x - noise_over_signal * predicted, predicted

    def posterior_mean(
        self, clean: Float[Array, "B H W C"], x: Float[Array, "B H W C"], t: Int[Array, " B"]
    ) -> Float[Array, "B H W C"]:
        """Mean of q(x_prev | x_t, clean) (DDPM eq. 7)."""
        return gather(self.tables.posterior_clean, t) * clean + gather(self.tables.posterior_noisy, t) * x

    def log_variance(
        self, variance: Float[Array, "B H W C"] | None, t: Int[Array, " B"]
    ) -> Float[Array, " B #H #W #C"]:
        """Log variance of p(x_prev | x_t): learned (Improved DDPM eq. 15), else fixed to log beta."""
        low, high = gather(self.tables.min_log_variance, t), gather(self.tables.max_log_variance, t)
        if variance is None:
            return high
        share = (variance + 1) / 2
        return share * high + (1 - share) * low

    def _variational_bound(
        self,
        predicted: Float[Array, "B H W C"],
        variance: Float[Array, "B H W C"],
        clean: Float[Array, "B H W C"],
        noise: Float[Array, "B H W C"],
        t: Int[Array, " B"],
    ) -> Float[Array, " B"]:
        x = self.corrupt(clean, noise, t)
        mean = self.posterior_mean(self.clean_and_noise(predicted, x, t)[0], x, t)
        log_variance = self.log_variance(variance, t)
        true_mean, true_log_variance = self.posterior_mean(clean, x, t), gather(self.tables.min_log_variance, t)
        kl = _per_sample(normal_kl(true_mean, true_log_variance, mean, log_variance))
        decoder = -_per_sample(discretized_log_likelihood(clean, mean, log_variance))
        return jnp.where(t == 0, decoder, kl) / math.log(2)


def make_gaussian(config: DiffusionConfig, learn_sigma: bool, steps: int | None = None) -> GaussianDiffusion:
    """The configured process, shortened to ``steps`` evenly spread times where given (ADM's respacing).

    Raises:
      UserError: more steps than ``diffusion.train_steps``, or too few train steps for the schedule.
    """
    betas = make_betas(config.schedule, config.train_steps)
    kept = np.arange(config.train_steps)
    if steps is not None:
        kept = space_timesteps(config.train_steps, steps)
        betas = respace_betas(betas, kept)
    # The embedding always sees the scale of T = 1000, so one model suits any number of train steps.
    times = kept * (1000 / config.train_steps)
    prediction = config.prediction
    assert prediction != "clean"  # DiffusionConfig refuses it
    return GaussianDiffusion(betas=betas, times=times, prediction=prediction, learn_sigma=learn_sigma)
