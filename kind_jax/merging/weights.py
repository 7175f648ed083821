"""ZipIt! for any network: a function of weights and inputs, and weights as nested dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from kind_jax.errors import UserError
from kind_jax.merging import apply, plan
from kind_jax.merging.plan import Plan, Settings
from kind_jax.merging.statistics import collect
from kind_jax.merging.table import Table, table_of


def zip_weights(
    function: Callable[..., Any], models: Iterable[Any], batches: Iterable[Any], settings: Settings
) -> tuple[dict[str, Any], Table, Plan]:
    """Merge the weights of networks that compute ``function(weights, *inputs)``, all the way.

    Args:
      models: the weights of each, with the same names and shapes.
      batches: inputs of the function, each with samples on its first axis.
      settings: ``stream`` must not be ``orthogonal`` where something is normalised over features: only a vision
        transformer's norms can be folded into what reads them, see :func:`kind_jax.merging.zip_models`.

    Returns:
      the merged weights, of NumPy; the table; and what became of every node.

    Raises:
      UserError: see :func:`kind_jax.merging.table_of`; fewer than two models, or weights of other names or shapes.
    """
    models = list(models)
    if len(models) < 2:
        raise UserError(f"there is {len(models)} model to merge, but there must be 2 or more.")
    plan.check_models(len(models), settings)
    batches = list(batches)
    for batch in batches:
        if not isinstance(batch, tuple | list):
            raise UserError(f"a batch is a {type(batch).__name__}, but it must be a tuple of the function's inputs.")
        if not batch or any(np.ndim(each) == 0 or len(each) == 0 for each in batch):
            raise UserError("a batch has no samples, but it must have one or more, on the first axis of each input.")
    if not batches:
        raise UserError("there are no batches to match features on, but there must be some.")
    models = [jax.tree.map(lambda leaf: leaf if hasattr(leaf, "shape") else np.asarray(leaf), each) for each in models]
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), model) for model in models]
    for i, other in enumerate(shapes):
        if other != shapes[0]:
            raise UserError(f"the weights of model {i} have other names, shapes or types than those of model 0.")
    table = table_of(function, models[0], *batches[0])
    for node in table.nodes:
        if plan.method_of(node, settings) == "orthogonal":
            raise UserError(
                f"stream is 'orthogonal', but the norm over the features of {node.name} cannot be folded here; it must "
                "be 'permute', 'zip' or 'identity'."
            )
    leaves = [table.split(model) for model in models]
    nodes = plan.measured(table, range(len(table.nodes)))
    found = collect(table, leaves, batches, plan.wanted(table, nodes)) if nodes else []
    if settings.method != "identity":
        plan.check_samples(table, dict(zip(nodes, found, strict=True)))
    made = plan.make(table, dict(zip(nodes, found, strict=True)), len(models), settings)
    return table.join(apply.merged(table, made.maps, leaves)), table, made
