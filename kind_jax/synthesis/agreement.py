"""Whether a classifier sees in an image the class that it was drawn for. N: images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from kind_jax import partition
from kind_jax.classifying.config import ClassifyRun
from kind_jax.classifying.predict import classify
from kind_jax.deploy.bundle import Bundle, check_bundle
from kind_jax.errors import UserError
from kind_jax.evaluating.pixels import dequantise
from kind_jax.untrusted.text import printable


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """A classifier and what it calls the classes that are drawn.

    Attributes:
      number: the classifier's number of each class, by name.
    """

    classifier: Bundle
    number: dict[str, int]

    @classmethod
    def of(cls, classifier: Bundle, names: Sequence[str], shape: tuple[int, int, int]) -> Agreement:
        """Match the classes by name.

        Args:
          names: of the classes that are drawn.
          shape: (H, W, C) of the images.

        Raises:
          UserError: no classifier, one that lacks a class or has two of its name, is for other images, or needs to be
            told superclasses.
        """
        check_bundle(classifier, "agree", ClassifyRun)
        settings, origin = classifier.config.model, f"the classifier {classifier.origin.name!r}"
        wanted = (settings.size, settings.size, settings.channels)
        if shape != wanted:
            raise UserError(f"{origin} is for images {wanted}, but those that are drawn are {shape}.")
        if settings.gated:
            raise UserError(f"{origin} must be told the superclass of an image, but here it has to find out the class.")
        odd = [name for name in names if classifier.class_names.count(name) != 1]
        if odd:
            raise UserError(
                f"{origin} must have one class of each name that is drawn, but of {printable(odd[0], 60)!r} it has "
                f"{classifier.class_names.count(odd[0])}."
            )
        placed = dataclasses.replace(classifier, collections=jax.tree.map(jnp.asarray, classifier.collections))
        return cls(classifier=placed, number={name: classifier.class_names.index(name) for name in names})

    def __call__(self, pixels: UInt8[np.ndarray, "N H W C"], name: str) -> Bool[np.ndarray, " N"]:
        """Which images are of the class ``name``, as far as the classifier can tell."""
        return classify(self.classifier, dequantise(pixels), batch=len(pixels)).argmax(axis=-1) == self.number[name]

    @property
    def settings(self) -> dict[str, Any]:
        """What identifies the classifier, as JSON values."""
        bundle = self.classifier
        return {"weights": bundle.weights, "step": bundle.step, "sha256": partition.fingerprint(bundle.collections)}
