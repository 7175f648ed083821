"""One weight on its way through a composition: what it offers, and what becomes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from kind_jax.deploy import components, cost
from kind_jax.deploy.budget import Budget, Offer, dense_pays
from kind_jax.deploy.record import Criterion, Form, Kept
from kind_jax.deploy.weights import Weight
from kind_jax.nn.init import Components

Scores = Float[np.ndarray, "_"]
"""One figure for each component, or for each tailor slot."""
Importance = tuple[Scores | None, Float[np.ndarray, "_ _"] | None]
"""Scores of the always-on components [n] and of the tailors [groups, n] of one weight; None where it has none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A weight with its components in the order in which they are kept, the most important first.

    Attributes:
      weight: always-on part and tailors. A ``kernel`` beside components is their exact sum.
      learngenes: which of the always-on components are learngenes, bool [n]; the others are folded tailors.
      shared, own: scores of always-on components and of tailor slots; slot n of a group is its n-th best tailor, and
        its score the mean over groups.
      shape: (d_in, d_out).
      vectors: of one image that the weight is applied to.
      groups: rows of the bank.
      may_be_dense: whether the always-on part may be held as a matrix, and ``must_be_dense`` whether it has to.
    """

    weight: Weight
    learngenes: np.ndarray
    shared: Scores
    own: Scores
    shape: tuple[int, int]
    vectors: int
    groups: int
    may_be_dense: bool
    must_be_dense: bool

    @property
    def each(self) -> cost.Cost:
        return cost.component(*self.shape, self.vectors)

    @property
    def kernel(self) -> cost.Cost:
        return cost.kernel(*self.shape, self.vectors)

    @property
    def base(self) -> cost.Cost:
        """What the weight costs without any component that could be left out."""
        bias = cost.Cost(parameters=self.shape[1], flops=0)
        return bias + self.kernel if self.must_be_dense else bias

    @property
    def offers(self) -> tuple[Offer, Offer]:
        """Always-on components and tailor slots."""
        each, cap = self.each, self.kernel if self.may_be_dense else None
        gated = cost.Cost(parameters=self.groups * each.parameters, flops=each.flops)
        shared = self.shared[:0] if self.must_be_dense else self.shared
        return Offer(scores=shared, each=each, cap=cap), Offer(scores=self.own, each=gated, cap=None)

    def keep(self, shared: int, own: int, budget: Budget) -> tuple[Weight, Kept]:
        """The weight with only the first components of each kind; all always-on ones where that makes it dense."""
        weight = self.weight
        dense = self.must_be_dense or dense_pays(self.offers[0], shared, budget)
        shared = len(self.shared) if dense else shared
        kernel, chain, bank = None, None, None
        if dense:
            kernel = weight.kernel
            if kernel is None:
                none = np.zeros(self.shape)  # a weight of rank 0 that has to be dense
                kernel = none if weight.shared is None else components.product(weight.shared)
        elif weight.shared is not None:
            chain = components.take(weight.shared, range(shared))
        if weight.own is not None:
            bank = Components(weight.own.u[..., :own], weight.own.s[..., :own], weight.own.v[:, :own])
        result = dataclasses.replace(weight, kernel=kernel, shared=chain, own=bank)
        spent = cost.projection(*self.shape, self.vectors, result.form, self.groups)
        kept = Kept(
            name=weight.name, learngenes=int(self.learngenes[:shared].sum()), of_learngenes=int(self.learngenes.sum()),
            tailors=own + int((~self.learngenes[:shared]).sum()),
            of_tailors=len(self.own) + int((~self.learngenes).sum()),
            form="dense" if dense else "factored", energy=self._energy(shared, own), error=self._error(shared, own),
            parameters=spent.parameters, flops=spent.flops,
        )  # fmt: skip
        return result, kept

    def energies(self) -> tuple[Scores, Scores]:
        """Of the always-on components, and of the tailor slots as the mean over groups."""
        nothing = np.zeros(0)
        shared, own = self.weight.shared, self.weight.own
        return (
            nothing if shared is None else components.energies(shared),
            nothing if own is None else components.energies(own).mean(0),
        )

    def _energy(self, shared: int, own: int) -> float:
        mine, theirs = self.energies()
        total = mine.sum() + theirs.sum()
        if total == 0 or (shared == len(mine) and own == len(theirs)):
            return 1.0
        return float((mine[:shared].sum() + theirs[:own].sum()) / total)

    def _error(self, shared: int, own: int) -> float:
        if shared == len(self.shared) and own == len(self.own):
            return 0.0
        parts, first = self.weight, self.weight.shared
        errors = []
        for group in range(self.groups if parts.own is not None else 1):
            mine = None if parts.own is None else components.row(parts.own, group)
            gone = [
                components.take(a, range(n, a.s.shape[0])) for a, n in ((first, shared), (mine, own)) if a is not None
            ]
            if first is None and parts.kernel is not None and mine is not None:
                whole = float(np.sum((parts.kernel + components.product(mine)) ** 2))
            else:
                whole = components.norm2(_sum([a for a in (first, mine) if a is not None]))
            errors.append(np.sqrt(components.norm2(_sum(gone)) / whole) if whole > 0 else 0.0)
        return float(np.mean(errors))


def _sum(parts: Sequence[Components]) -> Components:
    return parts[0] if len(parts) == 1 else components.chain(*parts)


def choose(
    weight: Weight,
    *,
    shape: tuple[int, int],
    vectors: int,
    groups: int,
    form: Form,
    criterion: Criterion,
    importance: Importance | None,
) -> Choice:
    """Fold the tailors in where there is one group, factor anew (criterion svd), and order components by importance.

    Args:
      importance: what ranks components, for criterion loss.
    """
    kernel, shared, own = weight.kernel, weight.shared, weight.own
    shared_scores, own_scores = importance or (None, None)
    learngenes = np.ones(0 if shared is None else len(shared.s), bool)
    if groups == 1 and own is not None:
        mine, own = components.row(own, 0), None
        if kernel is not None:
            kernel = kernel + components.product(mine)
        else:
            learngenes = np.concatenate([learngenes, np.zeros(len(mine.s), bool)])
            shared = mine if shared is None else components.chain(shared, mine)
            if own_scores is not None:
                shared_scores = np.concatenate([() if shared_scores is None else shared_scores, own_scores[0]])
    if criterion == "svd":
        if kernel is not None:
            shared = components.decompose(kernel)
        elif shared is not None:
            shared = components.refactor(shared)
        if own is not None:
            anew = [components.refactor(components.row(own, g)) for g in range(groups)]
            own = Components(*(np.stack(leaves) for leaves in zip(*anew, strict=True)))
        learngenes = np.ones(0 if shared is None else len(shared.s), bool)

    if criterion != "loss":
        # Energies are compared as they are over the whole model. On a digits model (output error under real noisy
        # inputs, 35 to 95 % of the parameters, one class and two) dividing them by the energy of the whole weight, or
        # by its root, was up to 40 % worse and rarely better: a weight that matters has grown.
        shared_scores = None if shared is None else components.energies(shared)
        own_scores = None if own is None else components.energies(own)
    if shared is not None and shared_scores is not None:
        order = np.argsort(-shared_scores, kind="stable")
        shared, shared_scores, learngenes = components.take(shared, order), shared_scores[order], learngenes[order]
    if own is not None and own_scores is not None:
        order = np.argsort(-own_scores, axis=1, kind="stable")
        own, own_scores = components.gather(own, order), np.take_along_axis(own_scores, order, 1).mean(0)
    nothing = np.zeros(0)
    return Choice(
        weight=dataclasses.replace(weight, kernel=kernel, shared=shared, own=own),
        learngenes=learngenes,
        shared=nothing if shared is None or shared_scores is None else shared_scores,
        own=nothing if own is None or own_scores is None else own_scores,
        shape=shape,
        vectors=vectors,
        groups=groups,
        may_be_dense=form != "factored" or kernel is not None,
        must_be_dense=form == "dense" or (kernel is not None and shared is None),
    )
