"""Composing a model: one training run, a set of classes and a budget give a model to deploy.

A class's weight is W(c) = U_G diag(s_G) V_G + U_c diag(s_c) V_c. Classes of one group need no gate: their tailors are
folded in, and each weight becomes one chain of components, or one matrix where that is cheaper. Several groups keep
their gates. A budget takes the components that matter most for their cost from the whole model. Nothing is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from kind_jax.classes import ClassList, numbers_of
from kind_jax.config import ModelConfig
from kind_jax.config.check import check_choice, is_whole, require
from kind_jax.deploy import cost
from kind_jax.deploy.budget import Budget, spend
from kind_jax.deploy.bundle import Bundle, check_bundle, groups_of
from kind_jax.deploy.choose import Choice, Importance, choose
from kind_jax.deploy.record import Composition, Criterion, Form, Kept
from kind_jax.deploy.weights import assemble, take_apart
from kind_jax.errors import UserError
from kind_jax.partition import LEARNGENES, PARAMS, TAILORS, fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Composed:
    """A model to deploy.

    Attributes:
      bundle: the model; its ``composition`` is the record that an artifact keeps.
      before, after: cost of the source with the tailors of the groups asked for, and of the composed model.
    """

    bundle: Bundle
    before: cost.Cost
    after: cost.Cost

    def __repr__(self) -> str:
        old, new = self.before, self.after
        return (
            f"<Composed: {old.parameters:,} -> {new.parameters:,} parameters, {old.flops:,} -> {new.flops:,} FLOPs\n"
            f"{self.bundle!r}>"
        )

    @property
    def record(self) -> Composition:
        assert self.bundle.composition is not None
        return self.bundle.composition


def compose(
    bundle: Bundle,
    *,
    classes: ClassList,
    max_params: int | None = None,
    max_flops: int | None = None,
    rank: int | None = None,
    form: Form = "auto",
    criterion: Criterion = "svd",
    importance: Mapping[str, Importance] | None = None,
) -> Composed:
    """Compose a model for ``classes`` within a budget; without one nothing is left out and the model is exact.

    Args:
      bundle: the source, which must hold the tailors of these classes.
      classes: classes to serve, by their numbers or names in the source; they keep both.
      max_params: upper bound on the parameters of the whole model, every gated group included.
      max_flops: upper bound on the FLOPs of one evaluation on one image; see :mod:`kind_jax.deploy.cost`.
      rank: components of learngenes and one group's tailors together that each weight keeps, in place of a budget.
      form: the always-on part of every weight as one matrix (``dense``), as components (``factored``; a weight that is
        dense in the source stays so unless ``svd`` makes it cheaper), or for each weight as whichever is cheaper by the
        budget's measure (``auto``), which is by parameters where there is no budget.
      criterion: what ranks components where some are left out. ``svd`` first factors anew, the sum W(c) for one group
        (so that each weight is the best one of its rank), learngenes and each group's tailors apart for several, and
        weights that are dense in the source too. ``energy`` takes (|s| |u| |v|)² of each as it is. ``loss`` takes
        ``importance``.
      importance: for ``loss``, the scores of each projection by its name, from
        :func:`kind_jax.deploy.importance.estimate`.

    Raises:
      UserError: a class that is unknown or not aboard, an argument of another type or value than these, arguments that
        contradict each other, or a budget below the smallest model that there is.
    """
    check_bundle(bundle)
    check_choice(criterion, Criterion, "criterion")
    classes = numbers_of(classes, bundle.class_names)
    groups = _check(bundle, classes, max_params, max_flops, rank, form)
    max_params, max_flops, rank = (None if n is None else int(n) for n in (max_params, max_flops, rank))
    if (criterion == "loss") != (importance is not None):
        raise UserError(f"criterion is {criterion!r}, but importance belongs to 'loss', and 'loss' needs it.")
    settings, budget = bundle.config.model, Budget(parameters=max_params, flops=max_flops)
    exact = max_params is None and max_flops is None and rank is None  # nothing to rank, so nothing to factor anew
    choices = _choices(bundle, groups, form, "energy" if exact else criterion, importance)
    counts = _counts(choices, _least(choices, settings, len(groups)), budget, rank)
    weights, kept = zip(*(c.keep(*n, budget) for c, n in zip(choices, counts, strict=True)), strict=True)
    model, collections = assemble(settings, weights, bundle.collections[PARAMS])

    before = bundle.composition is not None and bundle.composition.folded
    folded = before or (len(groups) == 1 and bool(bundle.collections[TAILORS]))
    sampler = bundle.config.sampler
    if folded:
        # Folded tailors are on in the unconditional branch too; what is left of guidance is the label embedding's.
        model = dataclasses.replace(model, null_gate="keep")
        if not (settings.label_embedding and settings.null_gate == "keep"):
            sampler = dataclasses.replace(sampler, guidance=1.0)
    record = Composition(
        classes=classes, folded=folded, max_params=max_params, max_flops=max_flops, rank=rank, form=form,
        criterion=criterion, source=fingerprint(bundle.collections[LEARNGENES]), energy=_energy(choices, counts, kept),
        weights=kept,
    )  # fmt: skip
    result = dataclasses.replace(
        bundle,
        config=dataclasses.replace(bundle.config, model=model, sampler=sampler),
        collections=collections,
        groups=groups,
        composition=record,
    )
    return Composed(bundle=result, before=cost.total(settings, len(groups)), after=cost.total(model, len(groups)))


def smallest(bundle: Bundle, *, classes: ClassList) -> cost.Cost:
    """What the smallest model costs that :func:`compose` can make for ``classes``: a lower budget is refused.

    That is of the form ``auto`` and the criterion ``svd``; weights that are dense in the source can get smaller then.

    Raises:
      UserError: a class that is unknown or not aboard.
    """
    check_bundle(bundle)
    groups = _check(bundle, numbers_of(classes, bundle.class_names), None, None, None, "auto")
    choices = _choices(bundle, groups, "auto", "svd", None)
    return _least(choices, bundle.config.model, len(groups))


def _check(
    bundle: Bundle,
    classes: tuple[int, ...],
    max_params: int | None,
    max_flops: int | None,
    rank: int | None,
    form: Form,
) -> tuple[int, ...]:
    """The groups to serve, after refusing what cannot be."""
    check_choice(form, Form, "form")
    bundle.gates.check(classes)
    for name, value in (("max_params", max_params), ("max_flops", max_flops), ("rank", rank)):
        require(value is None or (is_whole(value) and value >= 1), name, value, "a whole number, 1 or more")
    if rank is not None and not (max_params is None and max_flops is None):
        raise UserError(f"rank is {rank} beside a budget, but it must be one or the other.")
    if rank is not None and form == "dense":
        raise UserError(f"rank is {rank}, but form 'dense' keeps every component; it must be 'auto' or 'factored'.")
    return groups_of(bundle.config, classes)


def _choices(
    bundle: Bundle,
    groups: Sequence[int],
    form: Form,
    criterion: Criterion,
    importance: Mapping[str, Importance] | None,
) -> list[Choice]:
    """All weights with their components in order."""
    settings, rows = bundle.config.model, [bundle.groups.index(g) for g in groups]
    return [
        choose(
            weight, shape=settings.projection_sizes[weight.name.partition("/")[2]],
            vectors=cost.rows_of(settings, weight.name), groups=len(groups), form=form, criterion=criterion,
            importance=None if importance is None else _rows(importance[weight.name], rows),
        )
        for weight in take_apart(settings, bundle.collections, rows)
    ]  # fmt: skip


def _rows(importance: Importance, rows: Sequence[int]) -> Importance:
    shared, own = importance
    return shared, None if own is None else own[list(rows)]


def _least(choices: Sequence[Choice], settings: ModelConfig, groups: int) -> cost.Cost:
    """Everything outside the projections, and these without any component that could be left out."""
    parts = cost.costs(settings, groups)
    fixed = sum((parts[name] for name in parts if name not in settings.forms), start=cost.NOTHING)
    return sum((c.base for c in choices), start=fixed)


def _counts(choices: Sequence[Choice], base: cost.Cost, budget: Budget, rank: int | None) -> list[tuple[int, int]]:
    """How many always-on components and tailor slots each weight keeps."""
    if rank is not None:
        counts = []
        for choice in choices:
            scores = np.concatenate([choice.shared, choice.own])
            best = np.argsort(-scores, kind="stable")[:rank]
            shared = int(np.sum(best < len(choice.shared)))
            counts.append((shared, len(best) - shared))
        return counts
    if not budget.fits(base):
        large = budget.parameters is not None and base.parameters > budget.parameters
        name, limit, least = (
            ("max_params", budget.parameters, base.parameters) if large else ("max_flops", budget.flops, base.flops)
        )
        raise UserError(f"{name} is {limit}, but it must be {least} or more, the smallest model that can be composed.")
    taken = spend([offer for c in choices for offer in c.offers], base, budget)
    return list(zip(taken[::2], taken[1::2], strict=True))


def _energy(choices: Sequence[Choice], counts: Sequence[tuple[int, int]], kept: Sequence[Kept]) -> float:
    """Share of the components' energy over all weights."""
    total, left = 0.0, 0.0
    for choice, (_, own), record in zip(choices, counts, kept, strict=True):
        shared = len(choice.shared) if record.form == "dense" else record.learngenes + record.tailors - own
        mine, theirs = choice.energies()
        total += mine.sum() + theirs.sum()
        left += mine[shared:].sum() + theirs[own:].sum()
    return 1.0 - float(left / total) if total else 1.0
