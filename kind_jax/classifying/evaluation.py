"""A classifier measured on a split: figures with intervals, as a record and as tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import __version__, partition
from kind_jax.classes import mismatch
from kind_jax.classifying import best
from kind_jax.classifying.accuracy import Accuracy, measure
from kind_jax.config import DataConfig, MeshConfig
from kind_jax.data.dataset import Split, open_dataset, real
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.deploy.bundle import Bundle, Choice, open_bundle
from kind_jax.errors import UserError
from kind_jax.evaluating.intervals import wilson
from kind_jax.partition import TAILORS
from kind_jax.train import sharding


def open_weights(source: Path, weights: Choice | None, classes: Any = None) -> tuple[Bundle, best.Best | None]:
    """A model, and why its weights were chosen, if by their accuracy.

    Raises:
      UserError: it cannot be opened, or has no best weights.
    """
    bundle = open_bundle(source, weights=weights, classes=classes)
    if weights == "best":
        return bundle, best.read(source)
    inside = source.name == best.FOLDER and (source.parent / best.RECORD).is_file()  # the folder itself was named
    return bundle, best.read(source.parent) if inside else None


def open_split(bundle: Bundle, data: DataConfig, split: Split) -> Dataset:
    """A split whose classes and images are the model's.

    Raises:
      UserError: they are others.
    """
    dataset, settings = open_dataset(real(data), split), bundle.config.model
    shape = (settings.size, settings.size, settings.channels)
    if dataset.image_shape != shape:
        raise UserError(f"{bundle.origin} classifies images {shape}, but the data set has {dataset.image_shape}.")
    if (odd := mismatch(bundle.class_names, dataset.class_names)) is not None:
        raise UserError(f"the classes of the data set must be those of {bundle.origin}, in their order, but {odd}.")
    if len(bundle.served) == len(bundle.class_names):
        return dataset
    if not isinstance(dataset.source, MemorySource):
        raise UserError(
            f"{bundle.origin} serves {len(bundle.served)} of {len(bundle.class_names)} classes, but a data set that is "
            "not held in memory is measured with all of them."
        )
    rows = np.flatnonzero(np.isin(dataset.source.labels, bundle.served))
    source = MemorySource(images=dataset.source.images[rows], labels=dataset.source.labels[rows])
    return dataclasses.replace(dataset, source=source, captions=None, families=None)


def evaluate(bundle: Bundle, dataset: Dataset, batch: int, **how: Any) -> Accuracy:
    """Measure on all devices of this machine."""
    mesh = sharding.make_mesh(MeshConfig())
    batch = min(batch, -(-len(dataset.source) // mesh.size) * mesh.size)
    sharding.check_batch(batch, 1, mesh)
    weights = jax.device_put(jax.tree.map(jnp.asarray, _whole_bank(bundle)), sharding.replicated(mesh))
    return measure(bundle.config.model, weights, dataset, batch=batch, mesh=mesh, **how)


def _whole_bank(bundle: Bundle) -> partition.Collections:
    """The collections with a row for every group; those of groups that are not aboard are never switched on."""
    groups = bundle.config.model.num_groups
    if bundle.groups == tuple(range(groups)) or not bundle.config.model.gated:
        return bundle.collections

    def spread(leaf: Any) -> np.ndarray:
        whole = np.zeros((groups, *leaf.shape[1:]), leaf.dtype)
        whole[list(bundle.groups)] = leaf
        return whole

    return {**bundle.collections, TAILORS: jax.tree.map(spread, bundle.collections[TAILORS])}


def record(
    bundle: Bundle, dataset: Dataset, found: Accuracy, *, split: str, chosen: best.Best | None
) -> dict[str, Any]:
    """Everything that was measured and of what, as JSON values."""
    names, rows = bundle.class_names, found.confusion.sum(axis=1).tolist()
    return {
        "kind_jax": __version__,
        "model": str(bundle.origin),
        "step": bundle.step,
        "weights": bundle.weights,
        "chosen": None if chosen is None else {"step": chosen.step, "split": chosen.split, "top1": chosen.top1},
        "split": split,
        "images": found.count,
        "data": dataset.fingerprint,
        "figures": found.figures,
        "top1_interval": wilson(found.right, found.count),
        "superclass_given": bundle.config.model.gated,
        "classes": {name: {"images": rows[i], "right": int(found.confusion[i, i])} for i, name in enumerate(names)},
        "confusion": found.confusion.tolist(),
    }


def flattering(chosen: best.Best | None, split: str) -> str | None:
    """A warning where the weights were chosen by their accuracy on the very split."""
    if chosen is None or chosen.split != split:
        return None
    return (
        f"warning: these weights were chosen on the {split} split, as the best of their run, so its figures flatter "
        "them; data.validation and holdout validation keep the test split for the end"
    )


def summary(found: Accuracy) -> list[tuple[str, str]]:
    """The figures that matter, in words."""
    low, high = wilson(found.right, found.count)
    lines = [("top-1 accuracy", f"{found.top1:.2%} [{100 * low:.1f}, {100 * high:.1f}]")]
    if "top5" in found.figures:
        lines.append(("top-5 accuracy", f"{found.figures['top5']:.2%}"))
    return [
        *lines,
        ("cross-entropy", f"{found.loss:.4f}"),
        ("calibration error", f"{found.calibration_error:.2%}"),
        ("images", f"{found.count:,}"),
    ]


def per_class(found: Accuracy, names: tuple[str, ...], most: int = 40) -> list[tuple[str, str, str, str]]:
    """Class, images, share that was recognised, and what it is most often taken for; the worst ``most`` classes."""
    rows = []
    for i, name in enumerate(names):
        counts = found.confusion[i].copy()
        total, right = int(counts.sum()), int(counts[i])
        counts[i] = 0
        other = f"{names[int(counts.argmax())]} ({int(counts.max())})" if counts.any() else "-"
        rows.append(
            (right / total if total else 1.0, (name, str(total), f"{right / total:.1%}" if total else "-", other))
        )
    rows = sorted(rows, key=lambda row: row[0])[:most] if len(rows) > most else rows
    return [row for _, row in rows]
