"""Adapters: small trainable corrections of frozen dense kernels, the PEFT of this package.

An adapter is a pure function of a kernel and its own few arrays, which form the collection ``adapters``. Layers know
nothing of it: the adapted kernel is computed once a step, before the model runs (for LoRA a product of cost
d_in * d_out * rank, small beside tokens * d_in * d_out), so a merged model is an ordinary one, and merging is exact by
construction.

Kernels are [L, d_in, d_out], the depth axis of stacked blocks first, and used as x @ W.
"""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from kind_jax import partition
from kind_jax.adapters import dora, lora, oft, pissa, svdiff
from kind_jax.config.transfer import TransferConfig
from kind_jax.errors import UserError
from kind_jax.partition import ADAPTERS, PARAMS

# Each module: init(kernel, config, key) -> (kernel, arrays), merge(kernel, arrays, config) -> kernel, and
# TRAINED, the names of the arrays that are trained where some are not.
METHODS = {"lora": lora, "pissa": pissa, "dora": dora, "svdiff": svdiff, "oft": oft}


def attach(
    config: TransferConfig, collections: partition.Collections, key: PRNGKeyArray | None = None
) -> partition.Collections:
    """Collections with fresh adapters of the kernels that ``config.projections`` names.

    The merged model is the model that came in: no method changes its function at the start.

    Raises:
      UserError: a projection that is not a stacked dense kernel of this model, or arrays that do not fit it.
    """
    method = METHODS[config.method]
    key = jax.random.key(0) if key is None else key
    params, arrays = partition.flatten(collections[PARAMS]), {}
    for i, path in enumerate(_kernels(config, params)):
        params[path], own = method.init(params[path], config, jax.random.fold_in(key, i))
        arrays |= {f"{path.removesuffix('/kernel')}/{name}": array for name, array in own.items()}
    return {**collections, PARAMS: partition.unflatten(params), ADAPTERS: partition.unflatten(arrays)}


def merge(config: TransferConfig, collections: partition.Collections) -> partition.Collections:
    """Collections with the adapters applied to their kernels and no ``adapters``; those without any as they are."""
    if ADAPTERS not in collections:
        return collections
    params, arrays = partition.flatten(collections[PARAMS]), partition.flatten(collections[ADAPTERS])
    for path in _kernels(config, params):
        start = path.removesuffix("kernel")
        own = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
        params[path] = METHODS[config.method].merge(params[path], own, config)
    rest = {name: tree for name, tree in collections.items() if name != ADAPTERS}
    return {**rest, PARAMS: partition.unflatten(params)}


def trained(config: TransferConfig) -> tuple[str, ...]:
    """Paths of the arrays that are trained, or () where all of the method's are."""
    own = METHODS[config.method].TRAINED
    return tuple(f"{_path(name)}/{array}" for name in config.projections for array in own)


def _path(projection: str) -> str:
    inside = "attention/" if projection in ("qkv", "q", "k", "v", "o") else ""
    return f"blocks/{inside}{projection}"


def _kernels(config: TransferConfig, params: dict[str, Any]) -> list[str]:
    found = []
    for name in config.projections:
        path = f"{_path(name)}/kernel"
        if path not in params:
            there = sorted({p.split("/")[-2] for p in params if p.startswith("blocks/") and p.endswith("/kernel")})
            raise UserError(
                f"transfer.projections contains {name!r}, but {config.method} adapts dense kernels, and the source has "
                f"{', '.join(there) or 'none'}; compose a factored model with --form dense first."
            )
        found.append(path)
    return found
