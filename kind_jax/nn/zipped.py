"""Several networks that share their first stages: what merging models of different tasks makes (Stoica et al. 2024).

Dimensions: B samples, D features of all heads, K classes of all heads.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from kind_jax.config.networks import ZippedConfig
from kind_jax.nn.gate import Gate, learngenes_only
from kind_jax.nn.init import Initializer
from kind_jax.nn.pieces import drop, piece, run
from kind_jax.nn.resnet import Sequential


class Zipped(nnx.Module):
    """One trunk, and for each task what comes behind it.

    A head's logits are log-probabilities among its own classes, so that the greatest of all is the class whose own head
    is surest of it (section 5 of the paper), and the greatest among the classes of a task is that head's choice.
    """

    def __init__(self, config: ZippedConfig, *, init: Initializer) -> None:
        from kind_jax.model import module

        self.config, last = config, config.of.ends + 2
        self.trunk: Any = piece(config.of, 0, config.to, make=module, init=init) if config.to else None
        heads = [dataclasses.replace(config.of, num_classes=classes) for classes in config.classes]
        self.heads: Any = Sequential([piece(each, config.to, last, make=module, init=init) for each in heads])

    def __call__(
        self, images: Float[Array, "B H W C"], gate: Gate | None = None, *, train: bool = False, paths: None = None
    ) -> Float[Array, "B K"]:
        """Logits, float32; the arguments are those of :meth:`features`."""
        return self.logits(self.features(images, gate, train=train, paths=paths))

    def features(
        self, images: Float[Array, "B H W C"], gate: Gate | None = None, *, train: bool = False, paths: None = None
    ) -> Float[Array, "B D"]:
        """What the heads' last layers see, one head's behind the other's; once, where they all see the same.

        Args:
          images: as the network sees them, see :class:`kind_jax.config.classifier.ClassifierConfig`.
          gate, paths: it has neither tailors nor stochastic depth.
          train: whether batches are normalised by themselves, and the statistics move.
        """
        del paths
        return self.leave(self.through(self.enter(images, train=train), gate, train=train), gate, train=train)

    def enter(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Any:
        """What the first stage of the trunk sees."""
        return images if self.trunk is None or self.config.to == 0 else self.trunk.enter(images, train=train)

    def through(self, x: Any, gate: Gate | None = None, *, train: bool = False) -> Any:
        """``x`` after the trunk's stages that are held."""
        return x if self.trunk is None or self.config.to == 0 else self.trunk.through(x, gate, train=train)

    def leave(self, x: Any, gate: Gate | None = None, *, train: bool = False) -> Float[Array, "B D"]:
        """The features of what the trunk's last stage gives."""
        of, to = self.config.of, self.config.to
        gate = learngenes_only() if gate is None else gate
        if to > of.ends:
            return self.trunk.leave(x, train=train)
        found = [run(head, x, to, of.ends + 1, of.ends, gate, train=train) for head in self.heads]
        return jnp.concatenate(found, axis=1)

    def logits(self, features: Float[Array, "B D"]) -> Float[Array, "B K"]:
        """Of what :meth:`features` gives, float32."""
        count = len(self.config.classes)
        shared = self.config.to > self.config.of.ends
        own = [features] * count if shared else jnp.split(features, count, axis=1)
        return jnp.concatenate(
            [jax.nn.log_softmax(head.logits(x)) for head, x in zip(self.heads, own, strict=True)], axis=1
        )

    def keep(self, begin: int, end: int, count: int) -> None:
        """Hold no more than what lies between two places, see :mod:`kind_jax.nn.pieces`."""
        shared = self.config.to > self.config.of.ends
        if self.trunk is not None:
            self.trunk.keep(begin, min(end, self.config.to), self.config.of.ends)
            if end == 0 or (begin >= count and not (shared and begin == count)):
                drop(self, "trunk")
        if end <= count + (1 if shared else 0):
            drop(self, "heads")
