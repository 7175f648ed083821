"""In which order a factored weight meets its input, from shapes alone.

y = x u diag(s) v is either two thin products (*factored*) or one product with the weight W = u diag(s) v that is
multiplied out first, once a step (*folded*). Forward and backward passes cost the same multiple of either, so the
forward FLOPs decide; at equal FLOPs one product is faster than two and keeps no [rows, components] activation.
"""

from __future__ import annotations

from typing import Any, Literal

from kind_jax.config import Contraction

Order = Literal["factored", "folded"]

# How many more FLOPs one large product may cost than two thin ones: measured, see docs/performance.md.
PREFER_FOLDED = 1.05


def flops(order: Order, d_in: int, components: int, d_out: int, rows: Any) -> Any:
    """Multiply-adds of a forward pass, times two, of ``rows`` vectors through ``components`` rank-one pieces.

    ``rows`` is a number, or what jax.export has for one while the batch is dynamic.
    """
    thin = components * (d_in + d_out) * rows
    fold = components * d_in * d_out + d_in * d_out * rows
    return 2 * (thin if order == "factored" else fold)


def choose(setting: Contraction, d_in: int, components: int, d_out: int, rows: Any) -> Order:
    """The order for ``rows`` vectors that share one weight; ``setting`` other than ``auto`` decides by itself."""
    if setting != "auto":
        return setting
    folded = flops("folded", d_in, components, d_out, rows)
    return "folded" if folded <= PREFER_FOLDED * flops("factored", d_in, components, d_out, rows) else "factored"
