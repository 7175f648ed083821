"""A generator with its hidden units in other orders, computing the same.

Units of an MLP may stand in any order, as may attention heads, the features of a head that q and k share, those that v
and the output share, and the features of the conditioning vector and of the layer that makes it. Which axes of which
weights must follow is what the network itself says (:mod:`kind_jax.merging.table`). The features of the residual stream
may not be moved: the position embedding that is added there is fixed.

An order is an array p, by which unit p[i] of the model becomes unit i. Components are permuted on their outer axes, so
a model stays factored, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from kind_jax import model, partition
from kind_jax.config import ModelConfig
from kind_jax.merging import apply
from kind_jax.merging.maps import Maps, Nodes
from kind_jax.merging.table import Table, table_of
from kind_jax.nn.gate import learngenes_only, one_group
from kind_jax.partition import TAILORS, Collections

CONDITION, TIME = "condition", "time"

Orders = Mapping[str, Int[np.ndarray, " n"]]
"""The order of each node: ``condition`` and ``time``, and of block i ``i/mlp``, ``i/qk`` and ``i/vo``, the last two
over the features of all heads, which must be in the same order in both. A node without an entry stays as it is."""


def reordered(config: ModelConfig, collections: Collections, orders: Orders) -> Collections:
    """The same function with its hidden units in other orders; of NumPy."""
    table = _table(config, collections)
    maps: dict[Nodes, tuple[Maps, ...]] = {}
    for name, order in orders.items():
        turn = np.eye(len(order), dtype=np.float32)[order]
        maps[_nodes(table, name)] = (Maps(turn, turn.T),)
    leaves = table.split({name: jax.tree.map(np.asarray, tree) for name, tree in collections.items()})
    return {**{name: {} for name in collections}, **table.join(apply.adapted(table, maps, leaves, 0))}


def _table(config: ModelConfig, collections: Collections) -> Table:
    def function(collections: Collections, images: Any, times: Any, labels: Any) -> Any:
        gate = one_group(jnp.zeros(len(images), jnp.int32)) if collections[TAILORS] else learngenes_only()
        return partition.join(model.definition(config)[0], collections)(images, times, labels, gate)

    image = jax.ShapeDtypeStruct((1, config.size, config.size, config.channels), jnp.float32)
    time, label = (jax.ShapeDtypeStruct((1,), kind) for kind in (jnp.float32, jnp.int32))
    return table_of(function, collections, image, time, label)


def _nodes(table: Table, name: str) -> Nodes:
    """The nodes that an order is of: those that a bias writes."""
    if name in (CONDITION, TIME):
        (axis,) = table.axes[f"params/time_embed/{'out' if name == CONDITION else 'hidden'}/bias"]
        return axis.parts[0].nodes
    block, _, what = name.partition("/")
    layers = {"mlp": ("mlp_in",), "qk": ("attention/qkv", "attention/q"), "vo": ("attention/qkv", "attention/v")}[what]
    biases = [
        f for each in layers for f in (f"params/blocks/{each}/bias[{block}]", f"params/blocks/{block}/{each}/bias")
    ]
    *_, axis = table.axes[next(bias for bias in biases if bias in table.axes)]
    return axis.parts[-1 if what == "vo" else 0].nodes
