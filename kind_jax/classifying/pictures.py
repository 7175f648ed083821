"""Pictures of what a classifier gets right and wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from kind_jax.classifying.accuracy import Accuracy
from kind_jax.classifying.predict import classify
from kind_jax.data.sets import Dataset
from kind_jax.deploy.bundle import Bundle
from kind_jax.images import grid, png_bytes
from kind_jax.plots import confusion, reliability

MOST = 2000  # images among which mistakes are looked for
COLUMNS, ROWS = 8, 4


def confusion_png(found: Accuracy, names: Sequence[str]) -> bytes:
    """Shares of each true class that were taken for each class."""
    rows = np.maximum(found.confusion.sum(axis=1, keepdims=True), 1)
    return confusion(found.confusion / rows, names)


def calibration_png(found: Accuracy) -> bytes:
    """Accuracy against confidence."""
    return reliability(found.bins)


def mistakes(bundle: Bundle, dataset: Dataset) -> tuple[bytes | None, list[str]]:
    """A grid of the images that are wrong with most confidence, in rows, and a line about each; None without any.

    Of the first 2000 images of the data set. A gated classifier is told the superclass.
    """
    settings, names = bundle.config.model, bundle.class_names
    batch = dataset.source.gather(np.arange(min(len(dataset.source), MOST)))
    images, labels = batch["image"], batch["label"]
    said = np.zeros((len(labels), settings.num_classes), np.float32)
    if settings.gated:
        groups = np.asarray(settings.group_of_class)[labels]
        for group in np.unique(groups):
            said[groups == group] = classify(bundle, images[groups == group], superclass=int(group))
    else:
        said = classify(bundle, images)
    chosen = said.argmax(axis=1)
    wrong = np.flatnonzero(chosen != labels)
    worst = wrong[np.argsort(-said[wrong, chosen[wrong]], kind="stable")][: COLUMNS * ROWS]
    if not len(worst):
        return None, []
    lines = [f"{names[labels[i]]} taken for {names[chosen[i]]} ({said[i, chosen[i]]:.0%})" for i in worst.tolist()]
    return _grid(images[worst]), lines


def _grid(images: Float[np.ndarray, "N H W C"]) -> bytes:
    visible = images if images.shape[-1] in (1, 3) else images[..., :3]
    return png_bytes(grid(visible, COLUMNS, scale=max(1, 64 // images.shape[1])))
