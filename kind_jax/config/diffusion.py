"""The diffusion process and how it is sampled."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Literal

from kind_jax.config.check import STRICT, gathered, is_whole, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """What the model learns to undo.

    Attributes:
      process: ``gaussian`` is the discrete DDPM of ADM and DiT, ``flow`` is rectified flow.
      schedule: noise schedule of the Gaussian process.
      prediction: what the model outputs. In the Gaussian process ``epsilon``, the noise, or ``v``. A flow outputs the
        velocity (for both of these), or ``clean``, the image itself, whose error is weighted as the velocity's (Li & He
        2025, "Back to Basics: Let Denoising Generative Models Denoise"): images in patches of many pixels are far
        easier to learn so, as a narrow model need not carry all of the noise.
      train_steps: number of discrete times of the Gaussian process.
      times: how a flow draws its training times in (0, 1).
    """

    __pydantic_config__ = STRICT

    process: Literal["gaussian", "flow"] = "gaussian"
    schedule: Literal["linear", "cosine"] = "linear"
    prediction: Literal["epsilon", "v", "clean"] = "epsilon"
    train_steps: int = 1000
    times: Literal["uniform", "logit_normal"] = "logit_normal"

    @gathered()
    def __post_init__(self) -> None:
        steps = self.train_steps
        require(2 <= steps <= 100_000, "diffusion.train_steps", steps, "2 or more, at most 100000")
        possible = self.process == "flow" or self.prediction != "clean"
        require(possible, "diffusion.prediction", self.prediction, "'epsilon' or 'v' for the gaussian process")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How samples are drawn.

    Attributes:
      method: ``ddpm`` and ``ddim`` belong to the Gaussian process, ``euler`` and ``heun`` to the flow.
      steps: sampler steps; one model evaluation each, two for Heun (but one in its last step).
      guidance: classifier-free guidance scale; 1 is none and costs one model evaluation a step instead of two.
      guidance_channels: leading channels that guidance acts on; None is all of the image's (never the
        variance); DiT uses 3.
      eta: noise of DDIM: 0 is deterministic, 1 is like DDPM.
    """

    __pydantic_config__ = STRICT

    method: Literal["ddpm", "ddim", "euler", "heun"] = "ddpm"
    steps: int = 250
    guidance: float = 1.0
    guidance_channels: int | None = None
    eta: float = 0.0

    @gathered()
    def __post_init__(self) -> None:
        possible = is_whole(self.steps) and 1 <= self.steps <= 100_000
        require(possible, "sampler.steps", self.steps, "a whole number between 1 and 100000")
        guidance, most = self.guidance, 10_000
        possible = isinstance(guidance, numbers.Real) and 0 <= guidance <= most
        require(possible, "sampler.guidance", guidance, "0 or more (1 is no guidance), at most 10000")
        require(
            self.guidance_channels is None or self.guidance_channels >= 1,
            "sampler.guidance_channels",
            self.guidance_channels,
            "1 or more",
        )
        require(0 <= self.eta <= 1, "sampler.eta", self.eta, "between 0 and 1")
