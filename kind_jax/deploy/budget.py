"""Spending a budget: which components of which weight are worth their cost.

A greedy solution of the knapsack problem. Each weight offers its components best first; a component's slope is its
score by its price. Once holding the always-on part as a dense kernel is cheaper, all of its remaining components come
free, so the last step of a weight can be worth more than those before it: steps are merged until slopes fall
(the upper hull of score over price), taken in the order of their slopes, and a step that does not fit is skipped.
What is left is spent on single components. More budget never means less total score.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from kind_jax.deploy.cost import Cost

Scores = Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Offer:
    """What can be bought of one kind (always-on, or gated) of components of one weight.

    Attributes:
      scores: of its components or tailor slots, in descending order.
      each: what one costs.
      cap: what a dense kernel costs, at which all are free; None where there is no such choice.
    """

    scores: Scores
    each: Cost
    cap: Cost | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Upper bounds; None for none."""

    parameters: int | None
    flops: int | None

    def fits(self, cost: Cost) -> bool:
        return all(
            limit is None or spent <= limit
            for limit, spent in ((self.parameters, cost.parameters), (self.flops, cost.flops))
        )

    def price(self, cost: Cost) -> float:
        """Share of the budget, the sum of both where there are two; parameters where there is none."""
        if self.parameters is None and self.flops is None:
            return float(cost.parameters)
        bounds = ((self.parameters, cost.parameters), (self.flops, cost.flops))
        return sum(spent / limit for limit, spent in bounds if limit)


@dataclasses.dataclass(frozen=True)
class _Step:
    offer: int
    start: int
    stop: int
    cost: Cost
    score: float
    slope: float


def dense_pays(offer: Offer, count: int, budget: Budget) -> bool:
    """Whether a dense kernel is at most as dear as ``count`` components."""
    return offer.cap is not None and budget.price(offer.cap) <= budget.price(_times(offer.each, count))


def spend(offers: Sequence[Offer], base: Cost, budget: Budget) -> list[int]:
    """How many components to take of each offer; ``base`` is what the model costs without any."""
    taken, spent = [0] * len(offers), base
    if budget.parameters is None and budget.flops is None:
        return [len(offer.scores) for offer in offers]

    def buy(steps: list[_Step], spent: Cost) -> Cost:
        for step in sorted(steps, key=lambda s: -s.slope):  # stable: a weight's own order stands
            if taken[step.offer] == step.start and budget.fits(spent + step.cost):
                taken[step.offer], spent = step.stop, spent + step.cost
        return spent

    single = [_steps(i, offer, budget) for i, offer in enumerate(offers)]
    spent = buy([step for steps in single for step in _merged(steps, budget)], spent)
    buy([step for steps in single for step in steps], spent)
    return taken


def _times(cost: Cost, count: int) -> Cost:
    return Cost(parameters=cost.parameters * count, flops=cost.flops * count)


def _steps(index: int, offer: Offer, budget: Budget) -> list[_Step]:
    steps, total = [], len(offer.scores)
    for n in range(total):
        last = dense_pays(offer, n + 1, budget)
        stop, cost = n + 1, offer.each
        if last and offer.cap is not None:
            stop, before = total, _times(offer.each, n)
            cost = Cost(parameters=offer.cap.parameters - before.parameters, flops=offer.cap.flops - before.flops)
        steps.append(_step(index, n, stop, cost, float(np.sum(offer.scores[n:stop])), budget))
        if last:
            break
    return steps


def _step(offer: int, start: int, stop: int, cost: Cost, score: float, budget: Budget) -> _Step:
    price = budget.price(cost)
    return _Step(offer, start, stop, cost, score, score / price if price > 0 else float("inf"))


def _merged(steps: list[_Step], budget: Budget) -> list[_Step]:
    hull: list[_Step] = []
    for step in steps:
        while hull and hull[-1].slope < step.slope:
            before = hull.pop()
            cost, score = before.cost + step.cost, before.score + step.score
            step = _step(step.offer, before.start, step.stop, cost, score, budget)
        hull.append(step)
    return hull
