"""Classifier-free guidance (Ho & Salimans 2022)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kind_jax.errors import UserError


def guide(
    conditional: Float[Array, "B H W C_out"],
    unconditional: Float[Array, "B H W C_out"],
    scale: float | Float[Array, ""] | np.floating,
    channels: int | None,
) -> Float[Array, "B H W C_out"]:
    """``unconditional + scale * (conditional - unconditional)`` on the leading channels.

    The other channels are the conditional output's, as in DiT, whose samples come from the conditional half of the
    batch. ``scale`` 1 returns ``conditional`` bit for bit.

    Args:
      conditional, unconditional: model outputs for the same images, with and without the condition.
      scale: 1 is no guidance, 0 the unconditional output; may be traced.
      channels: how many channels are guided (DiT: 3); None is every channel, so a model that learns a variance
        should pass the number of its image channels, or the variance is extrapolated too.

    Raises:
      UserError: more channels than the output has.
    """
    # Written from the conditional side, so that a scale of 1 leaves no rounding behind.
    guided = conditional + (scale - 1) * (conditional - unconditional)
    if channels is None:
        return guided
    found = conditional.shape[-1]
    if channels > found:
        raise UserError(f"sampler.guidance_channels is {channels}, but it must be at most {found}, the model's output.")
    return jnp.concatenate([guided[..., :channels], conditional[..., channels:]], axis=-1)
