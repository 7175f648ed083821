"""Factored weights multiplied out."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from kind_jax import partition
from kind_jax.config import FactorConfig
from kind_jax.config.networks import Network, ViTConfig
from kind_jax.partition import LEARNGENES, PARAMS, TAILORS, Collections


def multiplied_out(config: Network, collections: Collections) -> tuple[Network, Collections]:
    """A network without tailors whose weights are all dense: W = U diag(s) V; others stay as they are."""
    if not isinstance(config, ViTConfig) or not collections[LEARNGENES]:
        return config, collections
    factors: dict[str, Any] = {
        k: np.asarray(v, np.float64) for k, v in partition.flatten(collections[LEARNGENES]).items()
    }
    params = dict(partition.flatten(collections[PARAMS]))
    for path in sorted({name.rpartition("/")[0] for name in factors}):
        u, s, v = (factors[f"{path}/{part}"] for part in "usv")
        params[f"{path}/kernel"] = ((u * s[..., None, :]) @ v).astype(np.float32)
    separate = config.factor.separate
    factor = FactorConfig(projections=())
    found: Collections = {**collections, LEARNGENES: {}, TAILORS: {}, PARAMS: partition.unflatten(params)}
    if separate:  # dense attention has one projection for q, k and v
        found[PARAMS] = _joined(found[PARAMS])
    return dataclasses.replace(config, factor=factor, gate="none"), found


def _joined(params: Any) -> Any:
    leaves = dict(partition.flatten(params))
    made: dict[str, Any] = {}
    for path, leaf in leaves.items():
        layer, _, kind = path.rpartition("/")
        before, _, name = layer.rpartition("/")
        if name in ("q", "k", "v") and before.endswith("attention"):
            if name == "q":
                made[f"{before}/qkv/{kind}"] = np.concatenate([leaves[f"{before}/{n}/{kind}"] for n in "qkv"], axis=-1)
        else:
            made[path] = leaf
    return partition.unflatten(made)
