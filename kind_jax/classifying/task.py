"""Classification: what a run of a classifier trains."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from kind_jax import model, partition
from kind_jax.classifying import augment, best, cost, fits, network
from kind_jax.classifying.accuracy import Accuracy, measure
from kind_jax.classifying.config import HEAD, ClassifyRun, altered
from kind_jax.classifying.outputs import outputs
from kind_jax.config.networks import ViTConfig
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.errors import UserError
from kind_jax.losses import cross_entropy
from kind_jax.nn.gate import Gate
from kind_jax.train import hosts
from kind_jax.train import state as states
from kind_jax.train.freeze import FROZEN, labels
from kind_jax.train.sharding import Rules
from kind_jax.train.state import TrainState
from kind_jax.train.task import Bank, Batch, Loss

_FEATURES = "features"


class Drawn(NamedTuple):
    """Images as they are seen in one step.

    Attributes:
      paths: factors on residual branches, for stochastic depth.
      features: what the head sees, where all before it stands still and was computed once.
    """

    images: Float[Array, "B H W C"]
    labels: Int[Array, " B"]
    targets: Float[Array, "B K"]
    superclass: Int[Array, " B"]
    gate: Gate
    paths: Float[Array, "B L 2"]
    features: Float[Array, "B D"] | None = None


@dataclasses.dataclass(frozen=True)
class ClassifyTask:
    """See :class:`kind_jax.train.task.Task`."""

    config: ClassifyRun
    remembers: bool = False
    """Whether the features of a probe's images, which are the same in every step, are computed once."""

    @property
    def bank(self) -> Bank | None:
        settings = self.config.model
        return Bank(settings.num_groups, None) if settings.gated else None

    @property
    def probes(self) -> bool:
        """Whether the head alone trains, so that the network before it is evaluated as it is: norms use their running
        statistics, which stand still."""
        return _trains_head_alone(self.config)

    @property
    def whole_batch(self) -> str | None:
        return "BatchNorm" if partition.STATS in self.shapes() and not self.probes else None

    @property
    def rules(self) -> Rules:
        return ()

    @property
    def held(self) -> dict[str, tuple[int, ...]]:
        return {}

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        settings, size = self.config.model, self.config.train.batch
        return {
            "image": jax.ShapeDtypeStruct((size, settings.size, settings.size, settings.channels), jnp.float32),
            "label": jax.ShapeDtypeStruct((size,), jnp.int32),
        }

    def shapes(self) -> partition.Collections:
        return model.definition(self.config.model)[1]

    def init(self) -> partition.Collections:
        if self.config.source is not None:
            raise UserError(
                f"the run begins from the weights with SHA-256 {self.config.source[:12]}… and has no checkpoint yet: "
                "--init must name the model that holds them."
            )
        if self.config.head == "fresh":
            raise UserError(
                "head is 'fresh', but it must be 'keep' for a run that begins from no other model (--init)."
            )
        return model.init(self.config.model, self.config.train.seed)

    def fixed(self) -> partition.Collections:
        return {}

    def fixed_shapes(self) -> partition.Collections:
        return {}

    def columns(self, dataset: Dataset, collections: partition.Collections) -> dict[str, np.ndarray]:
        if not self.remembers:
            return {}
        if hosts.is_first():
            print("the head alone trains, on images that stay as they are: computing features once ...", flush=True)
        weights = jax.tree.map(hosts.whole, collections)
        return {_FEATURES: outputs(self.config.model, weights, dataset)[0]}

    def draw(self, batch: Batch, key: PRNGKeyArray) -> Drawn:
        config, settings, keys = self.config, self.config.model, jax.random.split(key, 3)
        labels = batch["label"]
        images = augment.augment(config.augment, batch["image"], keys[0])
        images, targets = augment.mix(
            config.augment, images, labels, keys[1], classes=settings.num_classes, smoothing=config.smoothing
        )
        superclass = network.superclass_of(settings, labels)
        return Drawn(
            images=images, labels=labels, targets=targets, superclass=superclass,
            gate=network.gate_of(settings, superclass), paths=_paths(settings, len(labels), keys[2]),
            features=batch.get(_FEATURES),
        )  # fmt: skip

    def loss(
        self, collections: partition.Collections, drawn: Drawn, fixed: partition.Collections | None = None
    ) -> Loss:
        """Mean cross-entropy; of a gated classifier, over the classes of each sample's superclass."""
        del fixed
        return self.outputs(collections, drawn)[1]

    def outputs(
        self, collections: partition.Collections, drawn: Drawn, *, see: bool = False
    ) -> tuple[network.Outputs, Loss]:
        """What the network makes of a training batch, perhaps with the states of its blocks, and the loss of that."""
        settings, told = self.config.model, drawn.superclass if self.config.model.gated else None
        if drawn.features is not None:
            found = network.of_features(settings, collections, drawn.features, told)
        else:
            found = network.outputs(
                settings, collections, drawn.images, drawn.gate, train=not self.probes, superclass=told,
                paths=jnp.moveaxis(drawn.paths, 0, 1) if drawn.paths.size else None, see=see,
            )  # fmt: skip
        targets = drawn.targets
        if settings.gated:  # what smoothing has spread over other superclasses is spread over the sample's own
            inside = jnp.where(jnp.isfinite(found.logits), targets, 0.0)
            targets = inside / jnp.sum(inside, axis=-1, keepdims=True)
        loss = jnp.mean(cross_entropy(found.logits, targets))
        right = jnp.mean((jnp.argmax(found.logits, axis=-1) == drawn.labels).astype(jnp.float32))
        moved = {} if found.stats is None else {partition.STATS: found.stats}
        return found, Loss(loss, {"loss": loss, "accuracy": right}, moved)

    def bound(self, dataset: Dataset, *, begins: bool) -> tuple[ClassifyTask, list[str]]:
        del begins
        lines = fits.check_data(self.config, dataset)
        _holdout(self.config)  # refused now, not after hours
        still = self.probes and altered(self.config) is None and isinstance(dataset.source, MemorySource)
        return ClassifyTask(self.config, remembers=still), lines

    def flops(self) -> float:
        forward = cost.forward(self.config.model)
        # The gradient of a layer's weights costs as much as the layer, and so does that of its input.
        return (forward + cost.head(self.config.model) if self.probes else 3.0 * forward) * self.config.train.batch

    def watch(
        self, state: TrainState, fixed: partition.Collections, mesh: Mesh, directory: Path, step: int
    ) -> dict[str, float]:
        """See :meth:`look`."""
        del fixed
        return self.look(_weights(self.config, state), mesh, directory, step)

    def look(self, weights: partition.Collections, mesh: Mesh, directory: Path, step: int) -> dict[str, float]:
        """Accuracy of these weights on the held-out split; they are kept if they are the best so far by it."""
        config, found = self.config, self._measured(weights, mesh)
        chosen = best.Best(step=step, split=config.holdout, top1=found.top1, count=found.count)
        best.keep(directory, config, weights, _holdout(config).class_names, chosen)
        return self._named(found)

    def show(self, weights: partition.Collections, mesh: Mesh, directory: Path, step: int) -> dict[str, float]:
        """Accuracy of these weights on the held-out split, and nothing kept."""
        del directory, step
        return self._named(self._measured(weights, mesh))

    def _measured(self, weights: partition.Collections, mesh: Mesh) -> Accuracy:
        return measure(self.config.model, weights, _holdout(self.config), batch=self.config.train.batch, mesh=mesh)

    def _named(self, found: Accuracy) -> dict[str, float]:
        return {f"{self.config.holdout}_{name}": value for name, value in found.figures.items()}


@functools.lru_cache(maxsize=4)
def _trains_head_alone(config: ClassifyRun) -> bool:
    manners = partition.flatten(labels(config.optimizer, model.definition(config.model)[1]))
    trained = [path for path, manner in manners.items() if manner != FROZEN]
    return bool(trained) and all(path.startswith(f"{partition.PARAMS}/{HEAD}/") for path in trained)


@functools.lru_cache(maxsize=4)
def _holdout(config: ClassifyRun) -> Dataset:
    return open_dataset(config.data, config.holdout)


@functools.partial(jax.jit, static_argnums=0)
def _weights(config: ClassifyRun, state: TrainState) -> partition.Collections:
    return states.averaged(config, state)


def _paths(settings: object, count: int, key: PRNGKeyArray) -> Float[Array, "B L 2"]:
    """1 / (1 - rate) where a branch is kept and 0 where it is dropped; without stochastic depth, nothing."""
    if not isinstance(settings, ViTConfig) or not settings.drop_path:
        return jnp.zeros((count, 0, 2))
    rates = np.asarray(settings.drop_rates, np.float32)[None, :, None]
    kept = jax.random.bernoulli(key, 1 - rates, (count, settings.depth, 2))
    return kept / (1 - rates)
