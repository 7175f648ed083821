"""Captions and contrast: what a run of CoCa trains."""

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
from kind_jax.captioning import losses, network, show, texts
from kind_jax.captioning.config import CaptionRun
from kind_jax.captioning.held_out import measure
from kind_jax.classifying import augment
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset
from kind_jax.errors import UserError
from kind_jax.nn.gate import Gate, learngenes_only
from kind_jax.train import state as states
from kind_jax.train.sharding import Rules
from kind_jax.train.state import TrainState
from kind_jax.train.task import Batch, Loss

_TOKENS, _COUNT = "tokens", "captions"
_STACKS = r"params/(image|text|multimodal)/blocks/.*"
RULES: Rules = (
    (rf"{_STACKS}/kernel", (None, "fsdp")),  # as of all stacked blocks
    (rf"{_STACKS}/bias", ()),
    (r"params/text/table", ("fsdp",)),
    (r"params/poolers/.*/query", ()),
    (r"params/heads/.*", ()),
)


class Drawn(NamedTuple):
    """Pairs as they are seen in one step."""

    images: Float[Array, "B H W C"]
    tokens: Int[Array, "B T"]
    gate: Gate


@dataclasses.dataclass(frozen=True)
class CaptionTask:
    """See :class:`kind_jax.train.task.Task`."""

    config: CaptionRun
    captions: int = 1
    """Captions of the image that has most."""

    @property
    def bank(self) -> None:
        return None

    @property
    def whole_batch(self) -> str | None:
        return "the contrastive loss" if self.config.contrastive else None

    @property
    def rules(self) -> Rules:
        return RULES

    @property
    def held(self) -> dict[str, tuple[int, ...]]:
        return {}

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        settings, size = self.config.model, self.config.train.batch
        return {
            "image": jax.ShapeDtypeStruct((size, settings.size, settings.size, settings.channels), jnp.float32),
            "label": jax.ShapeDtypeStruct((size,), jnp.int32),
            _TOKENS: jax.ShapeDtypeStruct((size, self.captions, settings.context), jnp.int32),
            _COUNT: jax.ShapeDtypeStruct((size,), jnp.int32),
        }

    def shapes(self) -> partition.Collections:
        return model.definition(self.config.model)[1]

    def init(self) -> partition.Collections:
        if self.config.source is not None:
            raise UserError(
                f"the run begins from the weights with SHA-256 {self.config.source[:12]}… and has no checkpoint yet: "
                "--init must name the model that holds them."
            )
        return model.init(self.config.model, self.config.train.seed)

    def fixed(self) -> partition.Collections:
        return {}

    def fixed_shapes(self) -> partition.Collections:
        return {}

    def columns(self, dataset: Dataset, collections: partition.Collections) -> dict[str, np.ndarray]:
        """The captions of each record."""
        del collections
        found = texts.tokens_of(self.config, texts.captions_of(dataset))
        return {_TOKENS: found.tokens, _COUNT: found.counts}

    def draw(self, batch: Batch, key: PRNGKeyArray) -> Drawn:
        keys, count = jax.random.split(key, 2), batch[_COUNT]
        images = augment.augment(self.config.augment, batch["image"], keys[0])
        chosen = jnp.zeros_like(count)
        if self.config.text.captions == "random":
            chosen = jax.random.randint(keys[1], count.shape, 0, count)
        tokens = jnp.take_along_axis(batch[_TOKENS], chosen[:, None, None], axis=1)[:, 0]
        return Drawn(images, tokens, learngenes_only())

    def loss(
        self, collections: partition.Collections, drawn: Drawn, fixed: partition.Collections | None = None
    ) -> Loss:
        """The weighted sum of the contrastive and the captioning loss."""
        del fixed
        return self.outputs(collections, drawn)[1]

    def outputs(self, collections: partition.Collections, drawn: Drawn) -> tuple[network.Outputs, Loss]:
        """What the network makes of a training batch, and the loss of that."""
        config = self.config
        found = network.outputs(config.model, collections, drawn.images, drawn.tokens)
        targets = drawn.tokens[:, 1:]
        caption = losses.captioning(found.logits, targets, config.captioning_form)
        value = config.captioning * caption
        metrics = {"caption": caption, "token_accuracy": losses.token_accuracy(found.logits, targets)}
        if config.contrastive:
            metrics["contrastive"] = losses.contrastive(
                found.image, found.text, found.temperature, config.contrastive_form
            )
            value += config.contrastive * metrics["contrastive"]
            metrics["temperature"] = found.temperature
        return found, Loss(value, {"loss": value} | metrics)

    def bound(self, dataset: Dataset, *, begins: bool) -> tuple[CaptionTask, list[str]]:
        del begins
        lines = texts.check_data(self.config, dataset)
        _holdout(self.config)  # refused now, not after hours
        return CaptionTask(self.config, captions=max(len(each) for each in texts.captions_of(dataset))), lines

    def flops(self) -> float:
        return 3.0 * network.forward(self.config.model) * self.config.train.batch

    def watch(
        self, state: TrainState, fixed: partition.Collections, mesh: Mesh, directory: Path, step: int
    ) -> dict[str, float]:
        """See :meth:`look`."""
        del fixed
        return self.look(_weights(self.config, state), mesh, directory, step)

    def look(self, weights: partition.Collections, mesh: Mesh, directory: Path, step: int) -> dict[str, float]:
        """Figures of these weights on the held-out split, and a picture of images with the captions they are given."""
        config, dataset = self.config, _holdout(self.config)
        show.save(config, weights, dataset, directory / "samples" / f"step_{step:07d}.png", mesh)
        found = measure(config, weights, dataset, batch=config.train.batch, mesh=mesh)
        return {f"{config.holdout}_{name}": value for name, value in found.figures.items()}


@functools.lru_cache(maxsize=4)
def _holdout(config: CaptionRun) -> Dataset:
    dataset = open_dataset(config.data, config.holdout)
    texts.check_data(config, dataset)
    return dataset


@functools.partial(jax.jit, static_argnums=0)
def _weights(config: CaptionRun, state: TrainState) -> partition.Collections:
    return states.averaged(config, state)
