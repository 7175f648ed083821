"""A route past some blocks: tokens that take it come back unchanged behind them (TREAD, arXiv 2501.04765).

Dimensions: B samples, T tokens, K tokens that go through all blocks, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Route(NamedTuple):
    """Which tokens of each sample go through the blocks ``first`` to ``last``; all others skip them."""

    first: int
    last: int
    kept: Int[Array, "B K"]

    def enter(self, x: Float[Array, "B T D"]) -> Float[Array, "B K D"]:
        """The tokens that go on."""
        return jax.vmap(lambda tokens, kept: tokens[kept])(x, self.kept)

    def leave(self, x: Float[Array, "B T D"], through: Float[Array, "B K D"]) -> Float[Array, "B T D"]:
        """All tokens of before the route, with those in place that went ``through``."""
        return jax.vmap(lambda tokens, kept, new: tokens.at[kept].set(new, unique_indices=True))(x, self.kept, through)


def draw_kept(key: PRNGKeyArray, samples: int, tokens: int, kept: int) -> Int[Array, "B K"]:
    """For each sample ``kept`` of its tokens, each subset as likely as any other."""
    return jnp.argsort(jax.random.uniform(key, (samples, tokens)), axis=-1)[:, :kept].astype(jnp.int32)
