"""One projection of several models as one of a KIND model: decomposed together, or averaged for comparison."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np

from kind_jax.config import Form, ModelConfig
from kind_jax.deploy import components, cost
from kind_jax.deploy.factorise import method_of
from kind_jax.deploy.weights import Weight
from kind_jax.merging.joint import Joint, common_starts, factors, joint, weighted_mean
from kind_jax.merging.merge_record import MergedLayer
from kind_jax.merging.sources import Composed, Source
from kind_jax.nn.init import Components


def share_of(sources: Sequence[Source]) -> np.ndarray:
    """Each model's share of the classes."""
    counts = np.array([sum(source.counts) for source in sources])
    return counts / counts.sum()


def counts_of(sources: Sequence[Source]) -> np.ndarray:
    """Classes of each group, models in order."""
    return np.array([n for source in sources for n in source.counts])


def _always(sources: Sequence[Source], name: str) -> np.ndarray:
    """The weighted mean of what each model has on for all of its classes."""
    return weighted_mean([source.always(name) for source in sources], share_of(sources))


def decomposed(
    sources: Sequence[Source], weight: Weight, full: bool, target: ModelConfig
) -> tuple[Weight, MergedLayer]:
    """Learngenes and tailors that lose the least over the classes of all models.

    Args:
      sources: the models.
      weight: with the name of the projection, and what is dense of it.
      full: whether N_G is the rank of the weight.
      target: the merged model's settings, which have N_G and N_T.

    Returns:
      ``weight`` with its components, and its record.
    """
    begin, name = time.perf_counter(), weight.name
    weights, counts = Composed(sources, name), counts_of(sources)
    shape = weights[0].shape
    learngenes = min(shape) if full else target.learngenes
    starts = common_starts(weights, counts / counts.sum(), learngenes)
    # A model's own learngenes, so that one model alone would lose nothing; and its mean, which sets groups apart that
    # the common mean leaves opposite to each other.
    starts["learngenes"] = _always(sources, name)
    starts |= {f"model {i + 1}": source.mean(name) for i, source in enumerate(sources)}
    found = joint(weights, counts, learngenes=learngenes, tailors=target.tailors, starts=starts)
    return _recorded(sources, weight, found, time.perf_counter() - begin)


def averaged(sources: Sequence[Source], weight: Weight, full: bool, target: ModelConfig) -> tuple[Weight, MergedLayer]:
    """The mean of the always-on parts, beside the tailors as they are."""
    begin, name = time.perf_counter(), weight.name
    weights, nothing = Composed(sources, name), np.zeros(target.projection_sizes[name.partition("/")[2]])
    mean = _always(sources, name)
    learngenes = min(mean.shape) if full else target.learngenes
    shared = factors(mean, learngenes)
    always, tails, left = components.product(shared), [], []
    for source in sources:
        own = source.weights[name].own
        for row in range(len(source.classes)):
            kept = nothing if own is None else components.product(components.row(own, row))
            tails.append(factors(kept, target.tailors))
            left.append(source.whole(name, row) - always - components.product(tails[-1]))
    found = Joint(
        shared=shared, own=Components(*(np.stack(a) for a in zip(*tails, strict=True))), start="average", objective=(),
        norms=_norms(weights), apart=_norms([w - always for w in weights]), errors=_norms(left),
    )  # fmt: skip
    return _recorded(sources, weight, found, time.perf_counter() - begin)


def _norms(weights: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([float(np.linalg.norm(w)) for w in weights])


def _recorded(sources: Sequence[Source], weight: Weight, found: Joint, seconds: float) -> tuple[Weight, MergedLayer]:
    done = dataclasses.replace(weight, shared=found.shared, own=found.own)
    shape, counts = (found.shared.u.shape[0], found.shared.v.shape[1]), counts_of(sources)
    share = counts / counts.sum()
    total = float(share @ found.norms**2)
    relative = np.divide(found.errors, found.norms, out=np.zeros_like(found.errors), where=found.norms > 0)

    def kept(left: np.ndarray) -> float:
        return max(1 - float(share @ left**2) / total, 0.0) if total else 1.0

    def parameters(form: Form, groups: int) -> int:
        return cost.projection(*shape, 1, form, groups).parameters

    methods = {method_of(shape, len(s), None) for s in (found.shared.s, found.own.s[0])}
    layer = MergedLayer(
        name=weight.name, shape=shape, learngenes=found.shared.s.shape[-1], tailors=found.own.s.shape[-1],
        norm=math.sqrt(total), energy_learngenes=kept(found.apart), energy=max(kept(found.errors), kept(found.apart)),
        error=float(share @ relative), error_max=float(relative.max()), seconds=seconds,
        method="exact" if methods == {"exact"} else "randomised",
        start=found.start, sweeps=max(len(found.objective) - 1, 0),
        parameters=parameters(done.form, len(counts)),
        before=sum(parameters(s.weights[weight.name].form, len(s.classes)) for s in sources),
    )  # fmt: skip
    return done, layer
