"""The one thing that a sampler asks of a model."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Float

# (x_t, model_time) -> raw model output. Labels, gates and guidance are closed over by whoever builds it.
Denoise = Callable[[Float[Array, "B H W C"], Float[Array, " B"]], Float[Array, "B H W C_out"]]
