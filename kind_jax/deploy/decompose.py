"""Decomposing a dense model: each projection's leading components become learngenes, others the start of tailors.

W = U diag(s) V by its singular value decomposition. The first N_G components are shared by all classes, and what a
group begins with besides is a choice (:data:`kind_jax.deploy.divide.Residual`). Nothing is rescaled: the components
approximate the dense weight as they are. What neither learngenes nor a group's tailors hold is lost until training
brings it back, and the report says how much that is. All of it is NumPy.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np

from kind_jax.config import FactorConfig, ModelConfig, Projection
from kind_jax.deploy import cost
from kind_jax.deploy.bundle import Bundle, check_bundle
from kind_jax.deploy.decomposition import HEADER as HEADER
from kind_jax.deploy.decomposition import Decomposed
from kind_jax.deploy.decomposition import picture as picture
from kind_jax.deploy.decomposition import record as record
from kind_jax.deploy.decomposition import rows as rows
from kind_jax.deploy.divide import Layer, Residual, divide
from kind_jax.deploy.weights import Weight, assemble, take_apart
from kind_jax.errors import UserError
from kind_jax.partition import PARAMS, fingerprint


def decompose(
    bundle: Bundle,
    *,
    learngenes: int | None,
    tailors: int,
    groups: tuple[int, ...] | None = None,
    projections: Sequence[Projection] = ("qkv", "o", "mlp_in", "mlp_out"),
    residual: Residual = "spectrum",
    randomised: bool | None = None,
    seed: int = 0,
    on_layer: Callable[[Layer], object] | None = None,
) -> Decomposed:
    """Decompose a dense model.

    Args:
      bundle: a model without components that serves all of its classes.
      learngenes: N_G of each projection; None is its full rank, so that learngenes alone are the dense model.
      tailors: N_T of each group in each projection.
      groups: the group of each class, like ``model.groups``; None makes every class a group of its own.
      projections: those to decompose; any of ``q``, ``k``, ``v`` splits the fused attention input first.
      residual: what tailors begin with.
      randomised: whether only the components that are needed are found, approximately; None decides by the size of the
        weight and their number.
      seed: the same seed gives the same model.
      on_layer: is told about each projection when it is done.

    Raises:
      UserError: the model has components already, lacks classes, or has weights that are not finite; a number or name
        that is not possible; a result that this machine's memory has no room for.
    """
    check_bundle(bundle)
    model = bundle.config.model
    _check_source(bundle)
    target = target_of(model, learngenes, tailors, groups, tuple(projections), seed)
    weights = take_apart(model, bundle.collections, ())
    if target.factor.separate:
        weights = [part for w in weights for part in _split_input(w)]
    chosen = {w.name: _norm(w) for w in weights if w.name.partition("/")[2] in target.factor.projections}
    sizes = sum(w.bias.size + (0 if w.kernel is None else w.kernel.size) for w in weights)
    check_memory(target, sizes)

    done: list[Layer] = []
    for i, weight in enumerate(weights):
        if weight.name in chosen:
            weights[i], layer = divide(
                weight, norm=chosen[weight.name], learngenes=learngenes, tailors=tailors, groups=target.num_groups,
                residual=residual, randomised=randomised, seed=(seed, i),
            )  # fmt: skip
            done.append(layer)
            if on_layer is not None:
                on_layer(layer)
    settings, collections = assemble(target, weights, bundle.collections[PARAMS])
    result = dataclasses.replace(
        bundle,
        config=dataclasses.replace(bundle.config, model=settings),
        collections=collections,
        groups=tuple(range(settings.num_groups)),
        composition=None,
    )
    return Decomposed(
        bundle=result, layers=tuple(done), before=_parameters(bundle), after=_parameters(result), residual=residual,
        seed=seed, source=fingerprint(bundle.collections),
    )  # fmt: skip


def _check_source(bundle: Bundle) -> None:
    model = bundle.config.model
    for name, form in model.forms.items():
        if not form.plain or name.partition("/")[2] in ("q", "k", "v"):
            raise UserError(
                f"{bundle.origin} has components in its weight '{name}', but only a dense model can be decomposed; "
                "kind-jax compose --form dense makes one."
            )
    if set(bundle.groups) != set(range(model.num_groups)):
        raise UserError(
            f"{bundle.origin} serves {len(bundle.groups)} of its {model.num_groups} groups, but only a model that "
            "serves all can be decomposed: the classes of the others would begin with weights that are not theirs."
        )


def target_of(
    model: ModelConfig, learngenes: int | None, tailors: int, groups: tuple[int, ...] | None,
    projections: tuple[Projection, ...], seed: int,
) -> ModelConfig:  # fmt: skip
    """The config of the result, as far as one N_G is enough for all projections.

    Raises:
      UserError: a number or name that is not possible.
    """
    for name, value in (("learngenes", learngenes), ("tailors", tailors)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}, but it must be 1 or more.")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}, but it must be between 0 and {2**32 - 1}.")
    if not projections:
        raise UserError("projections is empty, but at least one must be decomposed.")
    factor = FactorConfig(projections=projections, energy=model.factor.energy)
    sizes = dataclasses.replace(model, factor=factor).projection_sizes
    for name in projections:
        if name not in sizes:
            raise UserError(f"projections names '{name}', but this model has {', '.join(sizes)}.")
        for what, count in (("learngenes", learngenes), ("tailors", tailors)):
            if count is not None and count > min(sizes[name]):
                raise UserError(f"{what} is {count}, but it must be at most {min(sizes[name])}, the rank of '{name}'.")
    most = max(min(sizes[name]) for name in projections) if learngenes is None else learngenes
    factor = dataclasses.replace(factor, learngenes=most, tailors=tailors)
    return dataclasses.replace(model, groups=groups, factor=factor)


def _split_input(weight: Weight) -> list[Weight]:
    """The fused attention input as q, k and v."""
    block, _, name = weight.name.partition("/")
    if name != "qkv" or weight.kernel is None:
        return [weight]
    kernels, biases = np.split(weight.kernel, 3, axis=1), np.split(weight.bias, 3)
    return [
        Weight(name=f"{block}/{part}", kernel=kernel, shared=None, own=None, bias=bias)
        for part, kernel, bias in zip("qkv", kernels, biases, strict=True)
    ]


def _norm(weight: Weight) -> float:
    """Frobenius norm of a kernel, which float32 must be able to hold, since a singular value may be as large."""
    norm = float(np.linalg.norm(np.asarray(weight.kernel, np.float64)))
    if not norm <= np.finfo(np.float32).max:
        raise UserError(f"the weight '{weight.name}' has the norm {norm:g}, but its weights must be finite numbers.")
    return norm


def memory() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(target: ModelConfig, dense: int) -> None:
    """Refuse a model whose components this machine has no room for.

    Args:
      target: with what it has of each component.
      dense: parameters that are in memory beside them.

    Raises:
      UserError: naming what it takes and what there is.
    """
    shared, kept, own = target.block_parameters
    # Components exist twice while those of all blocks are stacked, beside the dense weights that they come from.
    needed, there = 4 * (2 * (shared + kept + own) + dense), memory()
    if needed > there:
        raise UserError(
            f"tailors is {target.tailors} in each of {target.num_groups} groups, which makes {own:,} parameters in all "
            f"and takes {needed / 1e9:,.1f} GB, but this machine has {there / 1e9:,.1f} GB: take fewer tailors, or put "
            "several classes into each group."
        )


def _parameters(bundle: Bundle) -> int:
    return cost.total(bundle.config.model, len(bundle.groups)).parameters
