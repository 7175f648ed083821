"""How the features of several models go together over any number of samples. N: models, n: features of each, D = N n.

Each batch is centred on its own mean before products are taken, in float32 on the devices; batches are put together in
float64 (Chan, Golub & LeVeque 1983). The difference of two large numbers, which sums of products would give, is never
taken: a feature that hardly varies has a small variance and not a negative one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from kind_jax.errors import UserError
from kind_jax.merging.table import Place, Table

_STILL = 1e-12  # a variance as a share of the feature's square: what rounding makes of a constant


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Of one node, the features of one model behind those of the other.

    Attributes:
      models: N.
      count: samples: images, times the pixels or tokens of each.
      mean: float64.
      covariance: float64, of the population.
      unclipped: the covariance before a ReLU, a sigmoid or a tanh, where there is one.
    """

    models: int
    count: int
    mean: Float[np.ndarray, " D"]
    covariance: Float[np.ndarray, "D D"]
    unclipped: Float[np.ndarray, "D D"] | None = None

    @property
    def dead(self) -> Bool[np.ndarray, " D"]:
        """Which features never change."""
        return np.diag(self.covariance) <= _STILL * self.mean**2

    @property
    def correlation(self) -> Float[np.ndarray, "D D"]:
        """A feature that never changes has the correlation 0 with all that do.

        With each other such features have the one that they have before their ReLU, sigmoid or tanh: so a unit that is
        silent on these images is found again in a copy of its model, and what is merged with it is silent too.
        """
        found = _correlation(self.covariance)
        dead = self.dead
        if dead.any():
            found[dead], found[:, dead] = 0.0, 0.0
            if self.unclipped is not None:
                both = np.ix_(dead, dead)
                found[both] = _correlation(self.unclipped[both])
        return found


def _correlation(covariance: np.ndarray) -> np.ndarray:
    deviation = np.sqrt(np.diag(covariance))
    products = np.outer(deviation, deviation)
    return np.divide(covariance, products, out=np.zeros_like(covariance), where=products > 0)


@dataclasses.dataclass
class Moments:
    """What has been seen so far; the fields are those of :class:`Statistics`, with products summed and not averaged."""

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def none(cls, features: int) -> Moments:
        return cls(0, np.zeros(features), np.zeros((features, features)))

    def add(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        """Take in a batch's mean and its products about that mean."""
        total = self.count + count
        step = np.asarray(mean, np.float64) - self.mean
        self.scatter += scatter
        self.scatter += np.outer(step, step) * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total


def collect(
    table: Table,
    models: Sequence[Any],
    batches: Iterable[Sequence[Any]],
    places: Sequence[Sequence[Place]],
    devices: Sequence[Any] | None = None,
) -> list[Statistics]:
    """Statistics of the features of several models at nodes, all of which see the same batches.

    Args:
      models: the weights of each, as :meth:`Table.split` gives them.
      batches: inputs of the network, each with the samples on its first axis.
      places: of each node; where there are several, their covariances are averaged.
      devices: to split batches over; None takes all of this host's. A batch that they do not divide is not split.

    Raises:
      UserError: no batch, or features that are not finite.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    mesh = Mesh(np.asarray(devices), ("data",))
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    weights = [jax.device_put(model, whole) for model in models]
    # What stands before a ReLU comes behind the places themselves.
    wanted = tuple(
        (*(p.index for p in each), *(p.unclipped for p in each if p.unclipped is not None)) for each in places
    )

    found: list[list[Moments | None]] = [[None] * len(each) for each in wanted]
    for batch in batches:
        arrays = tuple(np.asarray(array) for array in batch)
        where = whole if len(arrays[0]) % len(devices) else split
        made = _of_batch(table, wanted, weights, tuple(jax.device_put(array, where) for array in arrays))
        for node, each in enumerate(jax.device_get(made)):
            for k, (count, mean, scatter) in enumerate(each):
                so_far = found[node][k]
                if so_far is None:
                    so_far = found[node][k] = Moments.none(len(mean))
                so_far.add(int(count), mean, scatter)
    return [_statistics(found[i], len(each), len(models)) for i, each in enumerate(places)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _of_batch(
    table: Table, wanted: tuple[tuple[int, ...], ...], weights: list[Any], inputs: tuple[Any, ...]
) -> list[list[tuple[Array, Array, Array]]]:
    features = [table.features(wanted, each, *inputs) for each in weights]
    return [
        [_moments([model[node][k] for model in features]) for k in range(len(each))] for node, each in enumerate(wanted)
    ]


def _moments(features: Sequence[Float[Array, "samples n"]]) -> tuple[Array, Array, Array]:
    joined = jnp.concatenate([each.astype(jnp.float32) for each in features], axis=1)
    mean = jnp.mean(joined, axis=0)
    centred = joined - mean[None, :]
    scatter = jnp.matmul(centred.T, centred, precision=jax.lax.Precision.HIGHEST)
    return jnp.asarray(len(joined)), mean, scatter


def _statistics(seen: Sequence[Moments | None], places: int, models: int) -> Statistics:
    moments = [each for each in seen if each is not None]
    if not moments:
        raise UserError("there are no images to match features on, but there must be some.")
    covariances = [each.scatter / each.count for each in moments]
    if not all(np.isfinite(each).all() for each in covariances):
        raise UserError("the features of a model are not finite, so that nothing can be matched with them.")
    unclipped = np.mean(covariances[places:], axis=0) if len(covariances) == 2 * places else None
    mean = np.mean([each.mean for each in moments[:places]], axis=0)
    return Statistics(models, moments[0].count, mean, np.mean(covariances[:places], axis=0), unclipped)
