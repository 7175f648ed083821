"""What a diffusion process is to the training loop."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float, Num, PRNGKeyArray

from kind_jax.config import DiffusionConfig
from kind_jax.diffusion.flow import make_flow
from kind_jax.diffusion.gaussian import make_gaussian
from kind_jax.errors import UserError


@runtime_checkable
class Process(Protocol):
    """Corrupts data with noise and scores a model's attempt to undo it.

    Times ``t`` are int32 in [0, T) for the Gaussian process and float32 in (0, 1) for the flow; in both, larger is
    noisier.
    """

    def draw_times(self, key: PRNGKeyArray, batch: int) -> Num[Array, " B"]:
        """Training times."""
        ...

    def corrupt(
        self, clean: Float[Array, "B H W C"], noise: Float[Array, "B H W C"], t: Num[Array, " B"]
    ) -> Float[Array, "B H W C"]:
        """``clean`` with as much of the standard normal ``noise`` as time ``t`` has."""
        ...

    def losses(
        self,
        output: Float[Array, "B H W C_out"],
        clean: Float[Array, "B H W C"],
        noise: Float[Array, "B H W C"],
        t: Num[Array, " B"],
    ) -> dict[str, Float[Array, " B"]]:
        """Losses per sample of the model's ``output`` at ``corrupt(clean, noise, t)``.

        ``loss`` is the total to minimise; its parts stand beside it (``mse``, and ``vb`` where a variance is learned).
        """
        ...

    def model_time(self, t: Num[Array, " B"]) -> Float[Array, " B"]:
        """What the model's time embedding sees, between 0 and 1000."""
        ...


def make_process(config: DiffusionConfig, learn_sigma: bool) -> Process:
    """The configured process, for a model that does or does not predict a variance.

    Raises:
      UserError: a flow with ``learn_sigma``, or too few train steps for the schedule.
    """
    if config.process == "gaussian":
        return make_gaussian(config, learn_sigma)
    if learn_sigma:
        raise UserError("model.learn_sigma is True, but it must be False for the flow process, which has no variance.")
    return make_flow(config)
