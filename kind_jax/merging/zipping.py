"""Several classifiers of one architecture become one without training: ZipIt! (Stoica et al. 2024)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from kind_jax import model, partition
from kind_jax.classifying import network
from kind_jax.config.networks import Network, ZippedConfig
from kind_jax.errors import UserError
from kind_jax.merging import apply, plan, rotation
from kind_jax.merging.factors import multiplied_out
from kind_jax.merging.plan import Plan, Settings
from kind_jax.merging.program import named_leaves
from kind_jax.merging.statistics import Statistics, collect
from kind_jax.merging.table import Table, table_of
from kind_jax.nn import inputs
from kind_jax.nn.init import ShapesOnly
from kind_jax.nn.pieces import piece
from kind_jax.partition import Collections

ALL = "all"
"""Everything is merged, the last layer too: for models of the same classes, or heads whose outputs mean the same."""


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A classifier: its settings and its weights."""

    config: Network
    collections: Collections


@dataclasses.dataclass(frozen=True, eq=False)
class Zipped:
    """What became of several models.

    Attributes:
      model: the merged one.
      table: of their architecture.
      nodes: numbers of the nodes that were matched, with statistics and the plan.
    """

    model: Model
    table: Table
    nodes: tuple[int, ...]
    statistics: dict[int, Statistics]
    plan: Plan


def zip_models(
    models: Sequence[Model],
    batches: Iterable[Float[np.ndarray, "_ H W C"]],
    *,
    to: int | str,
    settings: Settings,
    statistics: Mapping[int, Statistics] | None = None,
) -> Zipped:
    """Merge models without training. BatchNorm's statistics are merged too, and want
    :func:`kind_jax.merging.batchnorm.reset`.

    Args:
      models: two or more of one architecture.
      batches: images in [-1, 1], which all models see.
      to: the place up to which everything is merged, see :mod:`kind_jax.nn.pieces`: 0 merges nothing, which gives the
        ensemble, S + 1 all but the last layers; :data:`ALL` those too, by averaging them.
      statistics: those that another call found with these models, images and place, and with norms folded as
        ``settings.stream`` has it; images are not looked at then. None measures them.

    Raises:
      UserError: see :func:`check_alike` and :func:`check_place`; or features that cannot be matched that way.
    """
    models = list(models)
    check_alike(models)
    first = models[0].config
    check_place(first, to)
    plan.check_models(len(models), settings)
    models = [_plain(each, settings) for each in models]
    first = models[0].config
    if to == ALL and len({each.config.num_classes for each in models}) > 1:
        raise UserError(
            "to is 'all', which averages the last layers too, but the models have different numbers of classes."
        )
    table = _table(first)
    leaves = [table.split(each.collections) for each in models]
    trunk = set(leaves[0]) if to == ALL else _trunk(first, to, table)
    nodes = tuple(i for i, node in enumerate(table.nodes) if not trunk.isdisjoint(node.written))
    measured = plan.measured(table, nodes)
    if statistics is not None:
        statistics = dict(statistics)
        if statistics.keys() != set(measured):
            raise UserError(f"statistics are of {len(statistics)} nodes, but there are {len(measured)} up to {to!r}.")
    elif measured:
        places = plan.wanted(table, measured, trunk)
        found = collect(table, leaves, _checked(batches, first), places)
        statistics = dict(zip(measured, found, strict=True))
    else:
        statistics = {}
    if settings.method != "identity":
        plan.check_samples(table, statistics)
    made = plan.make(table, statistics, len(models), settings)
    shared = apply.merged(table, made.maps, leaves, only=trunk.__contains__)
    if to == ALL:
        merged = Model(first, _tree(table, shared, first))
    else:
        rests = [
            apply.adapted(table, made.maps, each, m, only=lambda name: name not in trunk)
            for m, each in enumerate(leaves)
        ]
        merged = _with_heads(models, int(to), table, shared, rests)
    return Zipped(merged, table, tuple(nodes), statistics, made)


def check_alike(models: Sequence[Model]) -> None:
    """Refuse fewer than two models, or models that are not of one architecture.

    Raises:
      UserError: naming the first setting that differs.
    """
    if len(models) < 2:
        raise UserError(f"there is {len(models)} model to merge, but there must be 2 or more.")
    first = models[0].config
    for other in (each.config for each in models[1:]):
        if type(other) is not type(first):
            raise UserError(f"the models are a {_kind(first)} and a {_kind(other)}, but must be of one architecture.")
        for field in dataclasses.fields(first):
            if field.name in _OWN:
                continue
            a, b = getattr(first, field.name), getattr(other, field.name)
            if a != b:
                raise UserError(
                    f"model.{field.name} is {a!r:.200} in one model and {b!r:.200} in another, but must be one in all."
                )
    for each in models:
        if each.config.gated:
            raise UserError(
                "a model has tailors that its gate switches on, but merging needs one set of weights for all images: "
                "compose it first."
            )


_OWN = (
    "num_classes",
    "groups",
    "drop_path",
    "momentum",
    "dtype",
    "scan_unroll",
    "remat",
    "contraction",
    "factor",
    "gate",
)
"""Settings that may differ: the last layer, what training alone depends on, and how weights are held or computed."""


def check_place(config: Network, to: int | str) -> None:
    """Refuse a place that the architecture does not have.

    Raises:
      UserError: see above.
    """
    if to == ALL:
        return
    most = config.most_shared
    whole = isinstance(to, int) and not isinstance(to, bool)
    if not (whole and 0 <= int(to) <= most):
        raise UserError(f"to is {to!r}, but it must be a whole number from 0 to {most}, or 'all'.")


def _checked(batches: Iterable[Any], config: Network) -> Iterator[tuple[Any]]:
    """Batches of images as the network takes them.

    Raises:
      UserError: something else.
    """
    shape = (config.size, config.size, config.channels)
    for images in batches:
        found = np.shape(images)
        if len(found) != 4 or found[1:] != shape or found[0] == 0:
            raise UserError(
                f"a batch of images has the shape {found}, but it must be (B, {', '.join(map(str, shape))})."
            )
        yield (images,)


def _kind(config: Any) -> str:
    return type(config).__name__.removesuffix("Config")


def _plain(each: Model, settings: Settings) -> Model:
    """Dense weights, and where streams are rotated, norms without gains."""
    config, collections = multiplied_out(each.config, each.collections)
    collections = {name: jax.tree.map(np.asarray, tree) for name, tree in collections.items()}
    if settings.stream == "orthogonal" and settings.method != "identity" and rotation.has_norms(config):
        config, collections = rotation.folded(config, collections)
    return Model(config, collections)


def _function(config: Network) -> Any:
    def function(collections: Collections, images: Any) -> Any:
        net = partition.join(model.definition(config)[0], collections)
        gate = network.gate_of(config, jnp.zeros(len(images), jnp.int32))
        return net.logits(net.features(inputs.seen(config, images), gate))

    return function


@functools.lru_cache(maxsize=8)
def _table(config: Network) -> Table:
    """The table of an architecture; merging it again traces and compiles nothing anew."""
    return table_of(_function(config), model.definition(config)[1], _images(config))


def _images(config: Network) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, config.size, config.size, config.channels), jnp.float32)


def _trunk(config: Network, to: int | str, table: Table) -> set[str]:
    """The leaves before a place, as the table names them."""
    if to == 0:
        return set()
    made = partition.split(piece(config, 0, int(to), make=model.module, init=ShapesOnly()))[1]
    return set(table.split(made))


def _with_heads(
    models: Sequence[Model], to: int, table: Table, shared: dict[str, Any], rests: Sequence[dict[str, Any]]
) -> Model:
    first = models[0].config
    classes = tuple(each.config.num_classes for each in models)
    common = {
        name: getattr(first, name) for name in ("size", "channels", "resolution", "colour", "mean", "std", "dtype")
    }
    config = ZippedConfig(of=first, to=to, classes=classes, num_classes=sum(classes), **common)
    trees = {"trunk": table.join(shared), **{f"heads/{i}": table.join(rest) for i, rest in enumerate(rests)}}
    flat: dict[str, dict[str, Any]] = {name: {} for name in partition.COLLECTIONS}
    for where, tree in trees.items():
        for collection, part in tree.items():
            for path, leaf in partition.flatten(part).items():
                flat.setdefault(collection, {})[f"{where}/{path}"] = leaf
    collections = {name: partition.unflatten(leaves) for name, leaves in flat.items()}
    _check_shapes(config, collections)
    return Model(config, collections)


def _tree(table: Table, leaves: dict[str, Any], config: Network) -> Collections:
    collections = {**{name: {} for name in partition.COLLECTIONS}, **table.join(leaves)}
    _check_shapes(config, collections)
    return collections


def _check_shapes(config: Network, collections: Collections) -> None:
    wanted = {name: leaf.shape for name, leaf in named_leaves(model.definition(config)[1]).items()}
    found = {name: np.shape(leaf) for name, leaf in named_leaves(collections).items()}
    assert found == wanted, {
        k: (found.get(k), wanted.get(k)) for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k)
    }
