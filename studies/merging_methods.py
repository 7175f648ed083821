"""What the study of merging compares: settings, methods, and how a merged model of a pair is made and measured."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from merging_training import HALF, Base, Net, Part, half

from kind_jax import model
from kind_jax.classifying import cost
from kind_jax.config.networks import ZippedConfig
from kind_jax.data.sets import Dataset
from kind_jax.merging import Model, Settings, Zipped, batchnorm, evaluate, zip_models
from kind_jax.merging.images import Mixed
from kind_jax.merging.statistics import Statistics

IMAGES, BATCH = 512, 128
"""That features are matched on, and that BatchNorm's statistics are of, half of each task; and of a batch."""
GRID = tuple((alpha, beta) for alpha in (1e-4, 0.1, 0.3, 0.5, 1.0) for beta in (0.0, 0.125, 0.5, 1.0))
SOURCES = {
    "digits": ("digits", "digits"),
    "animals": ("animals", "animals"),
    "animals + digits": ("animals", "digits"),
}


class Method(NamedTuple):
    """How two models become one.

    Attributes:
      method, stream: see :class:`kind_jax.merging.Settings`.
      to: stages or blocks that are shared; None for all but the heads.
    """

    method: str
    stream: str = "identity"
    to: int | None = None

    @property
    def tunable(self) -> bool:
        return "zip" in (self.method, self.stream)

    def settings(self, chosen: tuple[float, float]) -> Settings:
        alpha, beta = chosen
        return Settings(method=self.method, stream=self.stream, alpha=alpha, beta=beta)  # pyright: ignore[reportArgumentType]


RESNET_METHODS = {
    "average": Method("identity"),
    "permute": Method("permute"),
    "zip": Method("zip"),
    "zip to stage 2": Method("zip", to=2),
    "zip to stage 1": Method("zip", to=1),
}
VIT_METHODS = {
    "average": Method("identity"),
    "permute, stream as it is": Method("permute"),
    "permute": Method("permute", "permute"),
    "permute, stream rotated": Method("permute", "orthogonal"),
    "zip, stream as it is": Method("zip"),
    "zip, stream permuted": Method("zip", "permute"),
    "zip, stream zipped": Method("zip", "zip"),
    "zip": Method("zip", "orthogonal"),
    "zip to block 3": Method("zip", "orthogonal", 3),
    "zip to block 2": Method("zip", "orthogonal", 2),
    "zip to block 1": Method("zip", "orthogonal", 1),
}


def methods_of(net: Net) -> dict[str, Method]:
    return VIT_METHODS if net.kind == "vit" else RESNET_METHODS


class Pair:
    """Two trained models of different halves of the classes, and what was measured of their features.

    Args:
      bases: gives a trained model.
      share: of the usual steps of training.
    """

    def __init__(self, what: str, net: Net, seed: int, bases: Callable[[Base], Model], share: float = 1.0) -> None:
        self.net, self.seed = net, seed
        self.sources = SOURCES[what]
        self.models = [bases(Base(source, net, seed, i, share)) for i, source in enumerate(self.sources)]
        self._statistics: dict[Any, dict[int, Statistics]] = {}

    def tasks(self, part: Part) -> list[Dataset]:
        return [half(source, self.seed, i, part) for i, source in enumerate(self.sources)]

    def images(self, count: int | None = IMAGES) -> Mixed:
        return Mixed(self.tasks("train"), count=count, batch=BATCH, seed=self.seed)

    def zipped(
        self, how: Method, chosen: tuple[float, float], *, images: int | None = IMAGES, scrambled: bool = False
    ) -> Zipped:
        """The merged model before BatchNorm's statistics are found anew.

        Args:
          images: for the matching; None takes all.
          scrambled: match features under numbers that are those of others of their model.
        """
        to = self.net.config.most_shared if how.to is None else how.to
        folded = how.stream == "orthogonal"
        key = to, images, folded
        known = self._statistics.get(key)
        given = {i: _scrambled(each, self.seed) for i, each in known.items()} if scrambled and known else known
        found = zip_models(self.models, self.images(images), to=to, settings=how.settings(chosen), statistics=given)
        if known is None:
            self._statistics[key] = dict(found.statistics)
            if scrambled:
                return self.zipped(how, chosen, images=images, scrambled=True)
        return found

    def merged(self, how: Method, chosen: tuple[float, float], *, reset: bool = True, **given: Any) -> Model:
        found = self.zipped(how, chosen, **given).model
        if not reset:
            return found
        return Model(found.config, batchnorm.reset(found.config, found.collections, self.images()))

    def score(self, found: Model, part: Part) -> dict[str, Any]:
        return _as_dict(evaluate.together(found, self.tasks(part), (HALF, HALF)))

    def ensemble(self, part: Part) -> dict[str, Any]:
        return _as_dict(evaluate.ensemble(self.models, self.tasks(part)))

    def alone(self, part: Part) -> dict[str, Any]:
        """Each model by itself: joint accuracy, where classes that it does not know are wrong, and its own task's."""
        scores = [evaluate.alone(each, i, self.tasks(part)) for i, each in enumerate(self.models)]
        return {"joint": [s.joint for s in scores], "own": [s.tasks[i] for i, s in enumerate(scores)]}

    def nearest(self) -> dict[str, float]:
        """At each node, the mean over features of the greatest correlation with another one of the same model."""
        found, means = self.zipped(Method("permute", "permute"), (0.3, 0.125)), {}
        for i, statistics in found.statistics.items():
            n = len(statistics.mean) // 2
            near = []
            for own in (slice(0, n), slice(n, 2 * n)):
                inside = statistics.correlation[own, own] - 2 * np.eye(n)
                near.append(inside.max(axis=1)[~statistics.dead[own]])
            if sum(map(len, near)):
                means[found.table.nodes[i].name] = float(np.concatenate(near).mean())
        return means

    def within(self, how: Method, chosen: tuple[float, float]) -> dict[str, float]:
        """The share of the merges that join features of one model with each other."""
        matches = [match for each in self.zipped(how, chosen).plan.matches.values() for match in each]
        n = [len(match.group) // 2 for match in matches]
        same = [
            int((match.order // half_ == 0).all(axis=1).sum() + (match.order // half_ == 1).all(axis=1).sum())
            for match, half_ in zip(matches, n, strict=True)
        ]
        return {"share": sum(same) / sum(len(match.order) for match in matches)}

    def correlations(self) -> dict[str, float]:
        """The mean correlation of features that permuting pairs, at each node; features that never change left out."""
        how = Method("permute", "permute")
        found, means = self.zipped(how, (0.3, 0.125)), {}
        for i, matches in found.plan.matches.items():
            statistics = found.statistics[i]
            if len(matches) != 1:  # heads
                continue
            group, n = matches[0].group, len(matches[0].group) // 2
            partner = n + np.argsort(group[n:], kind="stable")[group[:n]]
            live = ~(statistics.dead[:n] | statistics.dead[partner])
            if live.any():
                means[found.table.nodes[i].name] = float(statistics.correlation[np.arange(n), partner][live].mean())
        return means


def tune(pair: Pair, how: Method) -> dict[str, float]:
    """Joint validation accuracy of every alpha and beta."""
    return {f"{a:g}, {b:g}": pair.score(pair.merged(how, (a, b)), "validation")["joint"] for a, b in GRID}


def best(scores: dict[str, float]) -> tuple[float, float]:
    """The best alpha and beta; of equal ones the first of the grid."""
    name = max(scores, key=lambda name: scores[name])
    alpha, beta = (float(part) for part in name.split(", "))
    return alpha, beta


def relative_costs(net: Net) -> dict[str, tuple[float, float]]:
    """FLOPs and parameters of each method's model, in multiples of one model's."""
    one, found = net.config, {"one model": (1.0, 1.0), "ensemble": (2.0, 2.0)}
    for name, how in methods_of(net).items():
        to = one.most_shared if how.to is None else how.to
        config = ZippedConfig(
            of=one, to=to, classes=(HALF, HALF), num_classes=2 * HALF, size=one.size, channels=one.channels
        )  # pyright: ignore[reportArgumentType]
        found[name] = cost.forward(config) / cost.forward(one), _size(config) / _size(one)
    return found


@functools.cache
def _size(config: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(model.definition(config)[1].get("params")))


def _scrambled(found: Statistics, seed: int) -> Statistics:
    """With the features of each model under numbers that are others'."""
    n = len(found.mean) // 2
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(n), n + rng.permutation(n)])
    unclipped = None if found.unclipped is None else found.unclipped[np.ix_(order, order)]
    covariance = found.covariance[np.ix_(order, order)]
    return dataclasses.replace(found, mean=found.mean[order], covariance=covariance, unclipped=unclipped)


def _as_dict(scores: evaluate.Scores) -> dict[str, Any]:
    return {"joint": scores.joint, "per task": scores.per_task, "tasks": list(scores.tasks)}
