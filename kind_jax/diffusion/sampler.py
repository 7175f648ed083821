"""Drawing samples: noise in, images out, one scan."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kind_jax.config import DiffusionConfig, SamplerConfig
from kind_jax.diffusion.denoise import Denoise
from kind_jax.diffusion.flow import make_flow
from kind_jax.diffusion.flow_sampler import Euler, Heun
from kind_jax.diffusion.gaussian import make_gaussian
from kind_jax.diffusion.gaussian_sampler import DDIM, DDPM
from kind_jax.errors import UserError

__all__ = ["Denoise", "Sampler", "make_sampler", "sample"]

_METHODS = {"gaussian": ("ddpm", "ddim"), "flow": ("euler", "heun")}


@runtime_checkable
class Sampler(Protocol):
    """A numerical method that turns noise into data in ``steps`` steps."""

    @property
    def steps(self) -> int: ...

    def step(
        self,
        denoise: Denoise,
        x: Float[Array, "B H W C"],
        i: Int[Array, ""],
        noise: Float[Array, "B H W C"],
    ) -> Float[Array, "B H W C"]:
        """One step from the state ``x``.

        Args:
          denoise: the model; sees the time that it was trained with.
          x: the state, pure noise at step 0.
          i: int32 step, 0 (the noisiest) to steps - 1; may be traced.
          noise: fresh standard normal noise; deterministic methods ignore it.
        """
        ...


def make_sampler(diffusion: DiffusionConfig, sampler: SamplerConfig, learn_sigma: bool) -> Sampler:
    """The configured sampler.

    Args:
      diffusion: the process that the model was trained with.
      sampler: method and steps; guidance is not the sampler's business but that of whoever builds ``denoise``.
      learn_sigma: whether the model's output has variance channels.

    Raises:
      UserError: a method of the other process, more steps than the process has times, or a variance in a flow.
    """
    methods = _METHODS[diffusion.process]
    if sampler.method not in methods:
        raise UserError(
            f"sampler.method is {sampler.method!r}, but it must be {methods[0]!r} or {methods[1]!r} "
            f"for the {diffusion.process} process."
        )
    if diffusion.process == "flow":
        if learn_sigma:
            raise UserError("model.learn_sigma is True, but it must be False for the flow process.")
        method = Euler if sampler.method == "euler" else Heun
        return method(steps=sampler.steps, flow=make_flow(diffusion))
    spaced = make_gaussian(diffusion, learn_sigma, sampler.steps)
    return DDPM(diffusion=spaced) if sampler.method == "ddpm" else DDIM(diffusion=spaced, eta=sampler.eta)


def sample(
    sampler: Sampler, denoise: Denoise, start: Float[Array, "B H W C"], key: PRNGKeyArray
) -> Float[Array, "B H W C"]:
    """Turn ``start``, standard normal noise, into samples.

    Meant to run under ``jax.jit``; the noise of step ``i`` is drawn from ``fold_in(key, i)``.
    """

    def body(x: Float[Array, "B H W C"], i: Int[Array, ""]) -> tuple[Float[Array, "B H W C"], None]:
        noise = jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        return sampler.step(denoise, x, i, noise), None

    return jax.lax.scan(body, start, jnp.arange(sampler.steps))[0]
