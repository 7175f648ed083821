"""Denoising: what a run of a diffusion transformer trains."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from kind_jax import adapters, model, partition
from kind_jax.config import Config
from kind_jax.config.capacity import check_capacity
from kind_jax.data.sets import Dataset
from kind_jax.deploy import cost
from kind_jax.diffusing import fits, guided, samples
from kind_jax.diffusion.process import make_process
from kind_jax.errors import UserError
from kind_jax.nn.gate import Gate
from kind_jax.nn.route import Route, draw_kept
from kind_jax.train import hosts
from kind_jax.train import state as states
from kind_jax.train.sharding import Rules
from kind_jax.train.state import TrainState
from kind_jax.train.task import AVERAGE, DONE, Bank, Batch, Loss, Metrics
from kind_jax.vae import pictures

_LABELS = "params/label_embed/table"  # the last row is the null class's
_ROUTE = 1 << 16  # folded into a step's key: what is drawn beside it must not depend on whether tokens are routed


class Drawn(NamedTuple):
    """Images with everything random about their step: noise, times, label drops, and, where tokens are routed, which
    of them skip no block. ``null_weight`` is that of the null class's gate, over the same rows, for Model Guidance."""

    clean: Float[Array, "B H W C"]
    noise: Float[Array, "B H W C"]
    t: Float[Array, " B"] | Int[Array, " B"]
    labels: Int[Array, " B"]
    null: Bool[Array, " B"]
    no_embedding: Bool[Array, " B"]
    gate: Gate
    kept: Int[Array, "B K"] | None = None
    null_weight: Float[Array, "B k"] | None = None


@dataclasses.dataclass(frozen=True)
class DiffusionTask:
    """See :class:`kind_jax.train.task.Task`."""

    config: Config

    @property
    def bank(self) -> Bank:
        return _bank(self.config)

    @property
    def whole_batch(self) -> None:
        return None

    @property
    def reads_average(self) -> bool:
        """See :class:`kind_jax.train.task.Averaging`."""
        return self.config.guidance.on

    @property
    def rules(self) -> Rules:
        return ()

    @property
    def held(self) -> dict[str, tuple[int, ...]]:
        """A transfer to new classes trains their rows of the label embedding and holds the null row: the new classes
        can then join the model that they were learned beside, as its unconditional branch is still the same. Rows of
        tailors cannot be held by number, as a step takes some out of the bank."""
        return {_LABELS: (-1,)} if self.config.transfer.method == "kind" else {}

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        settings, size = self.config.model, self.config.train.batch
        return {
            "image": jax.ShapeDtypeStruct((size, settings.size, settings.size, settings.channels), jnp.float32),
            "label": jax.ShapeDtypeStruct((size,), jnp.int32),
        }

    def shapes(self) -> partition.Collections:
        collections, transfer = model.definition(self.config.model)[1], self.config.transfer
        if transfer.method in adapters.METHODS:
            collections = jax.eval_shape(lambda c: adapters.attach(transfer, c), collections)
        return collections

    def init(self) -> partition.Collections:
        transfer = self.config.transfer
        if transfer.method != "none":
            raise UserError(
                f"transfer.method is {transfer.method!r}, so the run starts from another model: use kind-jax transfer."
            )
        if transfer.source:
            raise UserError(
                f"the run begins from the weights with SHA-256 {transfer.source[:12]}… and has no checkpoint yet: "
                "--init must name the model that holds them."
            )
        return model.init(self.config.model, self.config.train.seed)

    def fixed(self) -> partition.Collections:
        return {}

    def fixed_shapes(self) -> partition.Collections:
        return {}

    def columns(self, dataset: Dataset, collections: partition.Collections) -> dict[str, np.ndarray]:
        del dataset, collections
        return {}

    def draw(self, batch: Batch, key: PRNGKeyArray) -> Drawn:
        config, keys = self.config, jax.random.split(key, 4)
        images, labels = batch["image"], batch["label"]
        size = labels.shape[0]
        null = jax.random.bernoulli(keys[2], config.train.null, (size,))
        gates, tokens = model.class_gate(config.model), cost.tokens(config.model)
        few = config.routing.kept(tokens) if config.routing.rate else None
        return Drawn(
            clean=images,
            noise=jax.random.normal(keys[0], images.shape),
            t=make_process(config.diffusion, config.model.learn_sigma).draw_times(keys[1], size),
            labels=labels,
            null=null,
            no_embedding=null | jax.random.bernoulli(keys[3], config.train.embedding_dropout, (size,)),
            gate=gates(labels, null),
            kept=None if few is None else draw_kept(jax.random.fold_in(key, _ROUTE), size, tokens, few),
            null_weight=gates(labels, jnp.ones_like(null)).weight if config.guidance.on else None,
        )

    def loss(
        self, collections: partition.Collections, drawn: Drawn, fixed: partition.Collections | None = None
    ) -> Loss:
        """Mean denoising loss, and its parts. The bank may hold fewer groups than the config, if the gate fits it."""
        output, config = self.predict(collections, drawn), self.config
        if self.reads_average:
            assert fixed is not None
            process = make_process(config.diffusion, config.model.learn_sigma)
            moved = guided.shift(
                config.guidance, self.predict, fixed[AVERAGE], drawn,
                noisy=process.model_time(drawn.t) / 1000, done=fixed[DONE], channels=config.model.channels,
            )  # fmt: skip
            output = guided.subtracted(output, moved)
        parts = self.losses(output, drawn)
        return Loss(parts["loss"], parts)

    def predict(self, collections: partition.Collections, drawn: Drawn) -> Float[Array, "B H W out"]:
        """What the model makes of the noisy images."""
        route = None
        if drawn.kept is not None:
            first, last = self.config.routing.span(self.config.model.depth)
            route = Route(first, last, drawn.kept)
        return self._evaluate(functools.partial(model.apply, route=route), collections, drawn)

    def seen(
        self, collections: partition.Collections, drawn: Drawn
    ) -> tuple[Float[Array, "B H W out"], dict[str, Float[Array, ...]]]:
        """As :meth:`predict`, and the states of the blocks, see :meth:`kind_jax.nn.dit.DiT.seen`."""
        return self._evaluate(model.seen, collections, drawn)

    def _evaluate(self, evaluate: Callable[..., Any], collections: partition.Collections, drawn: Drawn) -> Any:
        config = self.config
        process = make_process(config.diffusion, config.model.learn_sigma)
        labels = jnp.where(drawn.no_embedding, config.model.num_classes, drawn.labels)
        noisy = process.corrupt(drawn.clean, drawn.noise, drawn.t)
        weights = adapters.merge(config.transfer, collections)
        return evaluate(config.model, weights, noisy, process.model_time(drawn.t), labels, drawn.gate)

    def losses(self, output: Float[Array, "B H W out"], drawn: Drawn) -> Metrics:
        """``loss`` and its parts, averaged over the batch, of what the model predicts."""
        process = make_process(self.config.diffusion, self.config.model.learn_sigma)
        return jax.tree.map(jnp.mean, process.losses(output, drawn.clean, drawn.noise, drawn.t))

    def bound(self, dataset: Dataset, *, begins: bool) -> tuple[DiffusionTask, list[str]]:
        fits.check_data(self.config, dataset)
        lines = check_capacity(self.config, strict=begins) + fits.check_guidance(self.config)
        config = fits.with_scale(self.config, dataset)
        if hosts.is_first():
            pictures.check(config)
        return DiffusionTask(config), lines

    def flops(self) -> float:
        """What ``model.remat`` computes again is not counted, as usual for model FLOPs utilisation (Chowdhery et al.
        2022, PaLM, appendix B). Model Guidance adds two evaluations, from ``guidance.start`` on."""
        settings, size, routing = self.config.model, self.config.train.batch, self.config.routing
        found = 3.0 * cost.products(settings, size, routing.tokens(settings)).total
        return found + (2.0 * cost.products(settings, size).total if self.config.guidance.on else 0.0)

    def watch(
        self, state: TrainState, fixed: partition.Collections, mesh: Mesh, directory: Path, step: int
    ) -> dict[str, float]:
        """A grid of class-conditional samples."""
        del fixed
        return self.show(_weights(self.config, state), mesh, directory, step)

    def show(self, weights: partition.Collections, mesh: Mesh, directory: Path, step: int) -> dict[str, float]:
        """A grid of class-conditional samples of these weights."""
        samples.save_samples(self.config, weights, mesh, directory / "samples" / f"step_{step:07d}.png")
        return {}


@functools.partial(jax.jit, static_argnums=0)
def _weights(config: Config, state: TrainState) -> partition.Collections:
    return adapters.merge(config.transfer, states.averaged(config, state))


@functools.lru_cache(maxsize=32)
def _bank(config: Config) -> Bank:
    """A step takes rows out of the bank where at most half of them can be in use."""
    groups = config.model.num_groups
    if not config.optimizer.lazy_tailors or not any(form.tailors for form in config.model.forms.values()):
        return Bank(groups, None)
    gate, size = model.class_gate(config.model), config.train.batch // (config.data.per_class or 1)
    index = jax.eval_shape(lambda: gate(jnp.zeros(size, jnp.int32), jnp.zeros(size, bool)).index)
    rows = math.prod(index.shape)
    return Bank(groups, rows if 2 * rows <= groups else None)
