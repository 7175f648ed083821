"""What the loss says about components: the estimated damage of removing each, from data.

The first-order change of the loss when s_i goes to 0 is s_i dL/ds_i. Its square, averaged over samples, ranks
components (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", eq. 8): at a minimum the mean
vanishes, its square does not. Only s is differentiated; it costs no more than training steps on as many images.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kind_jax import model, partition
from kind_jax.classes import ClassList, numbers_of
from kind_jax.config import Config
from kind_jax.config.faster import unhurried
from kind_jax.deploy.bundle import Bundle
from kind_jax.deploy.choose import Importance
from kind_jax.deploy.weights import path_of
from kind_jax.diffusing.task import DiffusionTask, Drawn
from kind_jax.errors import UserError
from kind_jax.partition import LEARNGENES, TAILORS
from kind_jax.train import step
from kind_jax.train.task import Batch

Tree = dict[str, Array]


def estimate(
    bundle: Bundle,
    images: Float[np.ndarray, "N H W C"],
    labels: Int[np.ndarray, " N"],
    *,
    classes: ClassList,
    samples: int = 512,
    micro: int = 4,
    seed: int = 0,
) -> dict[str, Importance]:
    """Importance of every component for ``classes``, for ``compose(..., criterion="loss")``.

    Args:
      images, labels: real images in [-1, 1] with the classes' numbers; those of other classes are not used.
      samples: images drawn, with their noise and times; fewer than there are repeats none before all were used.
      micro: images whose gradients are averaged before they are squared; fewer are closer to the Fisher information.

    Returns:
      For each projection, like ``3/qkv``, scores of its always-on components [n] and of its tailors [groups aboard, n].
      A group of which no image was seen scores 0.

    Raises:
      UserError: a class that is not aboard, or of which there are no images.
    """
    classes = numbers_of(classes, bundle.class_names)
    bundle.gates.check(classes)
    for c in classes:
        if not np.any(labels == c):
            raise UserError(
                f"classes has {bundle.class_names[c]!r}, number {c}, but the calibration images have none of it."
            )
    of_class = np.flatnonzero(np.isin(labels, np.asarray(classes)))
    rng = np.random.default_rng(seed)
    rounds = -(-samples // len(of_class))
    order = np.concatenate([rng.permutation(of_class) for _ in range(rounds)])[: max(samples // micro, 1) * micro]
    batch = {"image": jnp.asarray(images[order]), "label": jnp.asarray(labels[order], jnp.int32)}
    squares = _squares(
        bundle.config, bundle.groups, jax.tree.map(jnp.asarray, bundle.collections), batch, micro, jnp.asarray(seed)
    )
    return _by_projection(bundle, {path: np.asarray(a, np.float64) for path, a in squares.items()})


@functools.partial(jax.jit, static_argnames=("config", "groups", "micro"))
def _squares(
    config: Config,
    groups: tuple[int, ...],
    collections: partition.Collections,
    batch: Batch,
    micro: int,
    seed: Int[Array, ""],
) -> Tree:
    flat = {name: partition.flatten(collections[name]) for name in (LEARNGENES, TAILORS)}
    values = {f"{name}/{p}": a for name, tree in flat.items() for p, a in tree.items() if p.endswith(("/s", "/s_t"))}
    task = DiffusionTask(unhurried(config))

    def loss(values: Tree, part: Drawn) -> Float[Array, ""]:
        # Nothing is dropped: it is the conditional model that is deployed.
        kept = jnp.zeros_like(part.null)
        gate = model.class_gate(config.model, groups)(part.labels, kept)
        weights = partition.overlay(collections, partition.unflatten(values))
        return task.loss(weights, part._replace(null=kept, no_embedding=kept, gate=gate)).value

    def add(total: Tree, part: Drawn) -> tuple[Tree, None]:
        gradient = jax.grad(loss)(values, part)
        return {p: total[p] + jnp.square(a * gradient[p]) for p, a in values.items()}, None

    parts = jax.tree.map(lambda a: a.reshape(-1, micro, *a.shape[1:]), step.draw(task, batch, seed))
    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, values), parts)
    return jax.tree.map(lambda a: a / parts.labels.shape[0], total)


def _by_projection(bundle: Bundle, squares: dict[str, np.ndarray]) -> dict[str, Importance]:
    settings = bundle.config.model
    stacked, found = settings.factor.ranks is None, {}
    for name, form in settings.forms.items():
        block, _, projection = name.partition("/")
        path = f"blocks/{path_of(projection)}" if stacked else f"blocks/{block}/{path_of(projection)}"
        shared = squares[f"{LEARNGENES}/{path}/s"] if form.shared else None
        own = squares[f"{TAILORS}/{path}/s_t"] if form.tailors else None
        if stacked:
            shared = None if shared is None else shared[int(block)]
            own = None if own is None else own[:, int(block)]
        found[name] = (shared, own)
    return found
