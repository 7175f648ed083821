"""Orders of hidden units that a transformer's function does not depend on, and a model in another order.

Units of an MLP may stand in any order if the columns of the weight before them and the rows of the one after them stand
in the same; so may attention heads, the features of a head that q and k share, those that v and the output share, and
the features of the conditioning vector and of the hidden layer that makes it. The features of the residual stream may
not: the position embedding that is added there is fixed.

An order is an array p, by which unit p[i] of the model becomes unit i. Nothing is computed: components are permuted on
their outer axes, so the model stays factored, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from kind_jax.deploy.weights import Weight
from kind_jax.nn.init import Components
from kind_jax.partition import flatten, unflatten

CONDITION, TIME = "condition", "time"

Orders = Mapping[str, Int[np.ndarray, " n"]]
"""The order of each node: ``condition`` and ``time``, and of block i ``i/mlp``, ``i/qk`` and ``i/vo``, the last two
over the features of all heads, which must be in the same order in both. A node without an entry stays as it is."""

_LEAVES = {  # outside the blocks: the node and the axis of each leaf
    "time_embed/hidden/kernel": (TIME, 1), "time_embed/hidden/bias": (TIME, 0), "time_embed/out/kernel": (TIME, 0),
}  # fmt: skip
_CONDITION = {
    "time_embed/out/kernel": 1, "time_embed/out/bias": 0, "label_embed/table": 1, "final/adaln/kernel": 0,
}  # fmt: skip


def permute(
    weights: Mapping[str, Weight], params: Mapping[str, Any], orders: Orders
) -> tuple[dict[str, Weight], dict[str, Any]]:
    """The same function with its hidden units in other orders.

    Args:
      weights: the projections by name.
      params: the dense parameters, of which only those outside the blocks are used.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    for path, (node, axis) in [*_LEAVES.items(), *((path, (CONDITION, axis)) for path, axis in _CONDITION.items())]:
        if path in leaves and node in orders:
            leaves[path] = np.take(leaves[path], orders[node], axis)
    return {name: _permuted(weight, orders) for name, weight in weights.items()}, unflatten(leaves)


def _permuted(weight: Weight, orders: Orders) -> Weight:
    block, _, name = weight.name.partition("/")
    qk, vo = orders.get(f"{block}/qk"), orders.get(f"{block}/vo")
    if name == "qkv" and not (qk is None and vo is None):
        width = len(weight.bias) // 3
        qk, vo = (np.arange(width) if p is None else p for p in (qk, vo))
        return _columns(weight, np.concatenate([qk, width + qk, 2 * width + vo]))
    if name in ("q", "k"):
        return _columns(weight, qk)
    if name == "v":
        return _columns(weight, vo)
    if name == "mlp_in":
        return _columns(weight, orders.get(f"{block}/mlp"))
    return _rows(weight, {"o": vo, "mlp_out": orders.get(f"{block}/mlp"), "adaln": orders.get(CONDITION)}.get(name))


def _columns(weight: Weight, order: Int[np.ndarray, " d_out"] | None) -> Weight:
    """Another order of what the weight gives."""
    if order is None:
        return weight

    def of(parts: Components | None) -> Components | None:
        return None if parts is None else parts._replace(v=parts.v[..., order])

    kernel = None if weight.kernel is None else weight.kernel[:, order]
    return Weight(
        name=weight.name, kernel=kernel, shared=of(weight.shared), own=of(weight.own), bias=weight.bias[order]
    )


def _rows(weight: Weight, order: Int[np.ndarray, " d_in"] | None) -> Weight:
    """Another order of what the weight takes."""
    if order is None:
        return weight

    def of(parts: Components | None) -> Components | None:
        return None if parts is None else parts._replace(u=parts.u[..., order, :])

    kernel = None if weight.kernel is None else weight.kernel[order]
    return Weight(name=weight.name, kernel=kernel, shared=of(weight.shared), own=of(weight.own), bias=weight.bias)
