"""The projections of a model one by one, and the way back to collections.

Collections hold the blocks stacked where all have the same form, and apart where they differ; here it makes no
difference. Everything is NumPy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from kind_jax import partition
from kind_jax.config import FactorConfig, Form, ModelConfig
from kind_jax.nn.init import Components
from kind_jax.partition import LEARNGENES, PARAMS, TAILORS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weight:
    """One projection: an always-on part, gated tailors, or both.

    Attributes:
      name: block and projection, like ``3/qkv``.
      kernel: the always-on part as a matrix, where it is known as one.
      shared: the always-on part as components, where it is known as such.
      own: tailors, the group on the leading axis.
    """

    name: str
    kernel: Float[np.ndarray, "d_in d_out"] | None
    shared: Components | None
    own: Components | None
    bias: Float[np.ndarray, " d_out"]

    @property
    def form(self) -> Form:
        shared = None if self.kernel is not None else 0 if self.shared is None else self.shared.s.shape[-1]
        return Form(shared=shared, tailors=0 if self.own is None else self.own.s.shape[-1])


def path_of(name: str) -> str:
    """Where a projection is inside a block."""
    return f"attention/{name}" if name in ("qkv", "q", "k", "v", "o") else name


def take_apart(config: ModelConfig, collections: partition.Collections, rows: Sequence[int]) -> list[Weight]:
    """Every projection of every block, with the tailors of these bank rows."""
    flat = {name: partition.flatten(collections[name]) for name in partition.COLLECTIONS}
    stacked, found = config.factor.ranks is None, []
    for name, form in config.forms.items():
        block, _, projection = name.partition("/")
        path = f"blocks/{path_of(projection)}" if stacked else f"blocks/{block}/{path_of(projection)}"

        def leaf(
            collection: str, suffix: str, path: str = path, block: int = int(block), axis: int = 0
        ) -> Float[np.ndarray, ...]:
            array = np.asarray(flat[collection][f"{path}/{suffix}"])
            return np.take(array, block, axis) if stacked else array

        own = Components(*(leaf(TAILORS, f"{x}_t", axis=1)[list(rows)] for x in "usv")) if form.tailors else None
        found.append(
            Weight(
                name=name,
                kernel=leaf(PARAMS, "kernel") if form.shared is None else None,
                shared=Components(*(leaf(LEARNGENES, x) for x in "usv")) if form.shared else None,
                own=own,
                bias=leaf(PARAMS, "bias"),
            )
        )
    return found


def assemble(
    config: ModelConfig, weights: Sequence[Weight], params: Mapping[str, Any]
) -> tuple[ModelConfig, partition.Collections]:
    """A model of these projections.

    Args:
      config: of the model that they come from.
      params: its dense parameters, from which everything outside the blocks is taken.

    Returns:
      Its config and collections: stacked, as the same program as a plain one, where every weight is dense or all have
      the form that ``config.factor`` gives them without ``ranks``; a list of blocks otherwise.
    """
    if config.factor.separate and all(w.form.plain for w in weights):
        weights = _fused(config, weights)
    forms = {w.name: w.form for w in weights}
    usual = dataclasses.replace(config.factor, ranks=None)
    for factor in (FactorConfig(projections=()), usual):
        plain = dataclasses.replace(config, factor=factor)
        if plain.forms == forms:
            return plain, _collections(weights, params, plain.depth)
    ranks = tuple((n, -1 if f.shared is None else f.shared, f.tailors) for n, f in forms.items())
    listed = dataclasses.replace(config, factor=dataclasses.replace(config.factor, ranks=ranks))
    return listed, _collections(weights, params, None)


def _fused(config: ModelConfig, weights: Sequence[Weight]) -> list[Weight]:
    """Dense q, k and v as one qkv."""
    by_name = {w.name: w for w in weights}
    dense = dataclasses.replace(config, factor=FactorConfig(projections=()))
    fused = []
    for name in dense.forms:
        block, _, projection = name.partition("/")
        if projection != "qkv":
            fused.append(by_name[name])
            continue
        parts = [by_name[f"{block}/{p}"] for p in "qkv"]
        kernel = np.concatenate([w.kernel for w in parts if w.kernel is not None], axis=1)
        bias = np.concatenate([w.bias for w in parts])
        fused.append(Weight(name=name, kernel=kernel, shared=None, own=None, bias=bias))
    return fused


def _collections(weights: Sequence[Weight], params: Mapping[str, Any], depth: int | None) -> partition.Collections:
    """Collections with the blocks apart, or stacked where ``depth`` is given."""
    blocks: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for weight in weights:
        block, _, projection = weight.name.partition("/")
        held = blocks.setdefault(block, {name: {} for name in partition.COLLECTIONS})
        path = path_of(projection)
        held[PARAMS][f"{path}/bias"] = weight.bias
        if weight.kernel is not None:
            held[PARAMS][f"{path}/kernel"] = weight.kernel
        elif weight.shared is not None and weight.shared.s.size:
            held[LEARNGENES] |= {f"{path}/{x}": a for x, a in zip("usv", weight.shared, strict=True)}
        if weight.own is not None and weight.own.s.shape[-1]:
            held[TAILORS] |= {f"{path}/{x}_t": a for x, a in zip("usv", weight.own, strict=True)}
    found: partition.Collections = {}
    for name in partition.COLLECTIONS:
        if depth is None:
            leaves = {f"blocks/{i}/{path}": a for i, held in blocks.items() for path, a in held[name].items()}
        else:
            axis = 1 if name == TAILORS else 0
            leaves = {
                f"blocks/{path}": np.stack([blocks[str(i)][name][path] for i in range(depth)], axis)
                for path in blocks["0"][name]
            }
        found[name] = partition.unflatten({path: _float32(a) for path, a in leaves.items()})
    rest = {name: tree for name, tree in params.items() if name != "blocks"}
    found[PARAMS] = jax.tree.map(np.asarray, rest) | found[PARAMS]
    return found


def _float32(a: np.ndarray) -> Float[np.ndarray, ...]:
    return np.ascontiguousarray(a, np.float32)
