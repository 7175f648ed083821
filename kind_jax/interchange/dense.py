"""A model as a plain dense DiT, which is all that other programs know, and how far two such models are apart."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kind_jax import model, partition
from kind_jax.config import ModelConfig
from kind_jax.deploy.bundle import Bundle
from kind_jax.deploy.weights import Weight, assemble, take_apart
from kind_jax.errors import UserError
from kind_jax.nn.gate import learngenes_only


def multiplied_out(bundle: Bundle) -> Bundle:
    """The same model with every weight as one matrix, the attention input fused, and blocks stacked.

    Raises:
      UserError: the model has gated tailors.
    """
    settings = bundle.config.model
    if bundle.collections[partition.TAILORS]:
        raise UserError(
            f"{bundle.origin} has tailors of {len(bundle.groups)} groups, but a dense DiT has one weight for all "
            "classes: fold one group's in first, with kind-jax compose --form dense --classes N."
        )
    if settings.factor.ranks is None and all(form.plain for form in settings.forms.values()):
        return bundle
    weights = [_dense(weight, settings) for weight in take_apart(settings, bundle.collections, ())]
    config, collections = assemble(settings, weights, bundle.collections[partition.PARAMS])
    return dataclasses.replace(
        bundle, config=dataclasses.replace(bundle.config, model=config), collections=collections
    )  # fmt: skip


def _dense(weight: Weight, settings: ModelConfig) -> Weight:
    if weight.kernel is not None:
        return weight
    if weight.shared is None:  # nothing was kept but the bias
        kernel = np.zeros(settings.projection_sizes[weight.name.partition("/")[2]], np.float32)
    else:
        kernel = (weight.shared.u * weight.shared.s) @ weight.shared.v
    return dataclasses.replace(weight, kernel=kernel, shared=None)


def difference(bundle: Bundle, **settings: Any) -> float:
    """How much the outputs change with other settings of the model, like ``time_frequencies``.

    Returns:
      The largest difference relative to the largest output, on noise at four times, one class each; 0 where all
      outputs are 0.
    """
    config = dataclasses.replace(bundle.config.model, dtype="float32")  # else roundings would be measured
    ours = _outputs(config, bundle.collections)
    other = _outputs(dataclasses.replace(config, **settings), bundle.collections)
    largest = float(jnp.max(jnp.abs(ours)))
    return float(jnp.max(jnp.abs(ours - other))) / largest if largest else 0.0


@functools.partial(jax.jit, static_argnums=0)
def _outputs(config: ModelConfig, collections: partition.Collections) -> Float[Array, "4 H W out"]:
    shape = (4, config.size, config.size, config.channels)
    images = jax.random.normal(jax.random.key(0), shape)
    labels = jnp.arange(4, dtype=jnp.int32) % config.num_classes
    return model.apply(config, collections, images, jnp.linspace(0, 999, 4), labels, learngenes_only())
