"""What commands that draw have in common: whose weights, and how they are sampled."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from kind_jax.config import Config, SamplerConfig
    from kind_jax.vae import Vae


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerArguments:
    """Options of a command that draws images."""

    seed: int = 0
    """Seed of the noise."""
    steps: int | None = None
    """Sampler steps; default: as configured."""
    guidance: float | None = None
    """Classifier-free guidance scale; default: as configured."""
    method: Literal["ddpm", "ddim", "euler", "heun"] | None = None
    """Sampler; default: as configured."""
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights of a run; default: the moving average, or what the artifact holds."""
    vae: Path | None = None
    """diffusers folder of the VAE that decodes a latent model's samples; default: that of the run's config (data.vae)
    if its folder exists."""

    def sampler_of(self, config: Config) -> SamplerConfig:
        """The sampler of ``config`` with what is given.

        Raises:
          UserError: it does not fit the diffusion process.
        """
        given = {name: getattr(self, name) for name in ("steps", "guidance", "method")}
        changes = {name: value for name, value in given.items() if value is not None}
        sampler = dataclasses.replace(config.sampler, **changes)
        return dataclasses.replace(config, sampler=sampler).sampler

    def vae_of(self, config: Config) -> Vae | None:
        """The autoencoder that is given, or that of ``config``; None for a model of images.

        Raises:
          UserError: as :func:`kind_jax.vae.pictures.choose`.
        """
        from kind_jax.vae import pictures

        return pictures.choose(self.vae, config)
