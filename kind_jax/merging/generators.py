"""Several generators become one that serves the classes of all of them. Nothing is trained.

Models with the same learngenes and dense parameters are joined exactly (:mod:`kind_jax.deploy.groups`). Of others, each
projection is decomposed anew, all classes of all models together (:mod:`kind_jax.merging.joint`): what their weights
have in common becomes learngenes, what is left of each group its tailors. What a KIND model cannot have for each class
(biases, embeddings, dense projections) is averaged, weighted by classes. A merged model is an ordinary KIND model.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import jax
import numpy as np

from kind_jax import finite
from kind_jax.config import Config, DataConfig, FactorConfig, ModelConfig, Projection, TransferConfig
from kind_jax.config.check import check_choice, is_whole, require
from kind_jax.config.roles import JOIN, Role, compare
from kind_jax.deploy import cost, groups
from kind_jax.deploy.bundle import Bundle, check_bundle
from kind_jax.deploy.decompose import check_memory, target_of
from kind_jax.deploy.weights import Weight, assemble, path_of
from kind_jax.errors import UserError
from kind_jax.merging import dense, ways
from kind_jax.merging.agreement import agree
from kind_jax.merging.merge_record import MergedLayer, Model, Record
from kind_jax.merging.orders import reordered
from kind_jax.merging.sources import Composed, Source, take
from kind_jax.merging.ways import counts_of, share_of
from kind_jax.partition import LEARNGENES, TAILORS, fingerprint

Made = Literal["exact", "joint", "average"]
Method = Literal["auto", "exact", "joint", "average"]
Align = Literal["weights", "none"]

_AGREE = JOIN - {Role.TAILORS, Role.NULL}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Merged:
    """One model of several.

    Attributes:
      bundle: the model.
      method: how it was made: ``exact``, ``joint`` or ``average``.
      align: whether hidden units were put in the order of the first model's.
      layers: a record of each projection that was decomposed; none where nothing was.
      differences: how far the models' dense parameters are apart, by path; see
        :func:`kind_jax.merging.dense.mean_and_difference`.
      before: parameters of each model.
      after: of the merged one, with all groups.
      models: those that were merged.
      sources: SHA-256 of each one's weights (``partition.fingerprint``).
    """

    bundle: Bundle
    method: Made
    align: Align
    layers: tuple[MergedLayer, ...]
    differences: dict[str, float]
    before: tuple[int, ...]
    after: int
    models: tuple[Bundle, ...]
    sources: tuple[str, ...]


def merge(
    bundles: Sequence[Bundle],
    *,
    learngenes: int | Literal["full"] | None = None,
    tailors: int | None = None,
    projections: Sequence[Projection | str] | None = None,
    align: Align | str = "weights",
    method: Method | str = "auto",
    on_layer: Callable[[MergedLayer], object] | None = None,
) -> Merged:
    """Merge generators of the same sizes and diffusion process, each with classes of its own.

    Classes come in the order of the models, and only those that a model serves.

    Args:
      bundles: two models or more: KIND, composed, factored or dense.
      learngenes: N_G of each projection, or ``full`` for the rank of each; None is what all models with gated tailors
        have.
      tailors: N_T of each group, likewise. Classes that share their weights in their model are one group: those of a
        group there, and all classes of a model without gated tailors.
      projections: those to decompose; None is all that are factored in some model, or the four of the attention and the
        MLP where none is. The others become the mean over classes.
      align: ``weights`` first puts the hidden units of every other model in the order that agrees best with the first
        one (:mod:`kind_jax.merging.agreement`); models that share all of their biases and embeddings are in one order
        already. ``none`` takes them as they are.
      method: ``exact`` joins models with the same learngenes and dense parameters, and does nothing else. ``joint``
        decomposes. ``auto`` is exact where that is possible and no number or projection is given, or else joint.
        ``average`` is what the other two are compared with: the always-on parts are averaged, and each group keeps the
        tailors that it has; without gated tailors, the mean of dense models.
      on_layer: is told about each projection when it is done.

    Raises:
      UserError: fewer than two models; one that is no generator, or is not finite; a setting that differs; a class name
        that two of them have; numbers or names that are not possible; a result that this machine's memory has no room
        for.
    """
    check_choice(method, Method, "method")
    check_choice(align, Align, "align")
    for name in projections or ():
        check_choice(name, Projection, "projections")
    _check(bundles)
    asked = not (learngenes is None and tailors is None and projections is None)
    if method == "exact" and asked:
        raise UserError("method is 'exact', which changes no weight, but learngenes, tailors or projections are given.")
    if method == "exact" or (method == "auto" and not asked):
        grown = _grown(bundles, must=method == "exact")
        if grown is not None:
            return _finished(bundles, grown, "exact", "none", (), {})
    sources, target = _prepared(bundles, learngenes, tailors, projections, average=method == "average")
    if align == "weights":
        sources = [sources[0], *(_aligned(sources[0], other) for other in sources[1:])]
    layers: list[MergedLayer] = []
    weights, differences = [], {}
    way = ways.averaged if method == "average" else ways.decomposed
    for name in sources[0].weights:
        factored = name.partition("/")[2] in target.factor.projections
        weight, apart = _bias_and_kernel(sources, name, factored)
        differences |= apart
        if factored:
            weight, layer = way(sources, weight, learngenes == "full", target)
            layers.append(layer)
            if on_layer is not None:
                on_layer(layer)
        weights.append(weight)
    params, apart = dense.outside(sources, share_of(sources))
    settings, collections = assemble(target, weights, params)
    result = dataclasses.replace(
        bundles[0],
        config=_config(bundles, settings),
        collections=collections,
        groups=tuple(range(settings.num_groups)),
        class_names=_names(bundles),
        step=max(bundle.step for bundle in bundles),
        composition=None,
    )
    finite.check(collections, "the merged model")
    done: Made = "average" if method == "average" else "joint"
    how: Align = "weights" if align == "weights" else "none"
    return _finished(bundles, result, done, how, tuple(layers), apart | differences)


def _finished(
    bundles: Sequence[Bundle], result: Bundle, method: Made, align: Align, layers: tuple[MergedLayer, ...],
    differences: dict[str, float],
) -> Merged:  # fmt: skip
    return Merged(
        bundle=result, method=method, align=align, layers=layers, differences=differences,
        before=tuple(_parameters(bundle) for bundle in bundles), after=_parameters(result), models=tuple(bundles),
        sources=tuple(fingerprint(bundle.collections) for bundle in bundles),
    )  # fmt: skip


def _parameters(bundle: Bundle) -> int:
    return cost.total(bundle.config.model, len(bundle.groups)).parameters


def _check(bundles: Sequence[Bundle]) -> None:
    listed = isinstance(bundles, Sequence) and not isinstance(bundles, str)
    require(listed, "bundles", bundles, "a list of models")
    if len(bundles) < 2:
        raise UserError(f"the number of models is {len(bundles)}, but merging takes two or more.")
    for bundle in bundles:
        check_bundle(bundle, "a model to be merged", Config)
        finite.check(bundle.collections, bundle.origin)
    first = bundles[0]
    for other in bundles[1:]:
        for name, wanted, found in compare(first.config, other.config, _AGREE):
            if not name.startswith("model.factor."):
                raise UserError(
                    f"{name} of {other.origin} is {found!r:.100}, but it must be {wanted!r:.100}, as in "
                    f"{first.origin}, "
                    "since only models of the same sizes and diffusion process can be merged."
                )
    owner: dict[str, Bundle] = {}
    for bundle in bundles:
        for c in bundle.served:
            name = bundle.class_names[c]
            if name in owner:
                raise UserError(
                    f"the class {name!r} is in {owner[name].origin} and in {bundle.origin}, but each class must come "
                    "from one model: kind-jax shrink --drop removes it from the other."
                )
            owner[name] = bundle
    nulls = {bundle.config.model.null_gate: bundle.origin for bundle in bundles if bundle.collections[TAILORS]}
    if len(nulls) > 1:
        (a, where), (b, there) = itertools.islice(nulls.items(), 2)
        raise UserError(f"model.null_gate of {there} is {b!r}, but it must be {a!r}, as in {where}.")


def _grown(bundles: Sequence[Bundle], *, must: bool) -> Bundle | None:
    """The models joined as they are; None where they cannot be."""
    hashes = {fingerprint(bundle.collections[LEARNGENES]) for bundle in bundles}
    if len(hashes) > 1 and not must:
        return None
    grown = bundles[0]
    try:
        for other in bundles[1:]:
            grown = groups.grow(grown, other)
    except UserError:
        if must:
            raise
        return None
    return grown


def _prepared(
    bundles: Sequence[Bundle], learngenes: int | Literal["full"] | None, tailors: int | None,
    projections: Sequence[Projection | str] | None, *, average: bool,
) -> tuple[list[Source], ModelConfig]:  # fmt: skip
    """The models taken apart, and the config of the result."""
    chosen = _projections(bundles, projections, average=average)
    separate = not {"q", "k", "v"}.isdisjoint(chosen)
    sources = [take(bundle, separate=separate) for bundle in bundles]
    n_g: int | None = None if learngenes == "full" else 0
    n_t = 0
    if chosen:
        if learngenes != "full":
            n_g = _number("learngenes", learngenes, [bundle.config.model for bundle in bundles])
        n_t = _number("tailors", tailors, [bundle.config.model for bundle in bundles])
    counts = [n for source in sources for n in source.counts]
    total = sum(counts)
    # Groups are numbered in the order of their first classes, as a bundle's rows are.
    first = list(itertools.accumulate([0, *(len(source.classes) for source in sources)]))
    of_class = [
        begin + next(row for row, members in enumerate(source.classes) if c in members)
        for begin, source in zip(first, sources, strict=False)
        for c in source.bundle.served
    ]
    model = dataclasses.replace(
        bundles[0].config.model, num_classes=total, groups=None, factor=FactorConfig(projections=()),
        null_gate=next((s.bundle.config.model.null_gate for s in sources if s.gated), "keep"),
    )  # fmt: skip
    if not chosen:
        return sources, model
    own = None if of_class == list(range(total)) else tuple(of_class)
    target = target_of(model, n_g, n_t, own, chosen, 0)
    check_memory(target, sum(_parameters(bundle) for bundle in bundles))
    return sources, target


def _projections(
    bundles: Sequence[Bundle], asked: Sequence[Projection | str] | None, *, average: bool
) -> tuple[Projection, ...]:
    """Those to decompose, in the order of a block."""
    forms = [form for bundle in bundles for form in bundle.config.model.forms.items()]
    separate = {"q", "k", "v"} & {name.partition("/")[2] for name, _ in forms}
    if asked is not None:
        if not asked:
            raise UserError("projections is empty, but at least one must be decomposed.")
        if separate and "qkv" in asked:
            raise UserError(
                "projections names 'qkv', but one of the models has a separate q, k and v, so they must be named apart."
            )
        return tuple(name for name in get_args(Projection) if name in asked)
    found = {name.partition("/")[2] for name, form in forms if not form.plain}
    if not found and average:
        return ()
    found = found or {"qkv", "o", "mlp_in", "mlp_out"}
    if separate or not found.isdisjoint(("q", "k", "v")):
        found = found - {"qkv"} | ({"q", "k", "v"} if "qkv" in found else set())
    return tuple(name for name in get_args(Projection) if name in found)


def _number(name: Literal["learngenes", "tailors"], value: int | None, models: Sequence[ModelConfig]) -> int:
    """The number of components that was asked for, or that all models with gated tailors have."""
    if value is not None:
        require(is_whole(value) and value >= 1, name, value, "1 or more")
        return int(value)
    known = {getattr(m, name) for m in models if m.factor.ranks is None and m.factor.projections}
    if len(known) != 1:
        said = f"the models have {' and '.join(map(str, sorted(known)))}" if known else "no model says how many"
        raise UserError(f"{name} is not given, but it must be: {said}.")
    return known.pop()


def _names(bundles: Sequence[Bundle]) -> tuple[str, ...]:
    return tuple(bundle.class_names[c] for bundle in bundles for c in bundle.served)


def _config(bundles: Sequence[Bundle], model: ModelConfig) -> Config:
    """The first model's, which is no transfer any more, with the classes of all in its data set if they share one."""
    first = bundles[0].config
    plain = [dataclasses.replace(b.config.data, classes=None, only=None) for b in bundles]
    data: DataConfig = first.data
    if all(each == plain[0] for each in plain):
        known = [b.config.data.classes for b in bundles]
        data = dataclasses.replace(data, only=None)
        if all(classes is not None for classes in known):
            classes = tuple(dict.fromkeys(c for each in known for c in each or ()))
            data = dataclasses.replace(data, classes=classes)
    return dataclasses.replace(first, model=model, data=data, transfer=TransferConfig())


def _aligned(reference: Source, other: Source) -> Source:
    pairs = [(reference.weights[name].bias, other.weights[name].bias) for name in reference.weights]
    pairs += [(reference.params[name], other.params[name]) for name in ("patch_embed", "time_embed", "final")]
    if all(np.array_equal(a, b) for pair in pairs for a, b in zip(*map(jax.tree.leaves, pair), strict=True)):
        return other  # averages would not be exact in any other order
    orders, bundle = agree(reference, other), other.bundle
    moved = reordered(bundle.config.model, bundle.collections, orders)
    return take(dataclasses.replace(bundle, collections=moved), separate="0/q" in other.weights)


def _bias_and_kernel(sources: Sequence[Source], name: str, factored: bool) -> tuple[Weight, dict[str, float]]:
    """What of a projection is dense in the merged model, and how far the models are apart there."""
    block, _, projection = name.partition("/")
    path = f"blocks/{block}/{path_of(projection)}"
    bias, apart = dense.mean_and_difference([s.weights[name].bias for s in sources], share_of(sources))
    found, kernel = {f"{path}/bias": apart}, None
    if not factored:
        counts = counts_of(sources)
        kernel, found[f"{path}/kernel"] = dense.mean_and_difference([*Composed(sources, name)], counts / counts.sum())
    return Weight(name=name, kernel=kernel, shared=None, own=None, bias=bias), found


def record(merged: Merged) -> Record:
    """What is written beside the merged model."""
    return Record(
        models=tuple(
            Model(origin=b.origin.name, source=source, classes=tuple(b.class_names[c] for c in b.served), parameters=n)
            for b, source, n in zip(merged.models, merged.sources, merged.before, strict=True)
        ),
        method=merged.method, align=merged.align, parameters=merged.after, bytes=4 * merged.after, layers=merged.layers,
        differences=merged.differences,
    )  # fmt: skip
