"""Zipping runs and artifacts: their data, their classes, and the artifact that comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import DataConfig
from kind_jax.config.training import PackagedSource
from kind_jax.data.dataset import Split, open_dataset, real
from kind_jax.data.folder import has_test_split
from kind_jax.data.sets import Dataset
from kind_jax.deploy.bundle import Bundle, check_bundle
from kind_jax.errors import UserError
from kind_jax.merging import batchnorm
from kind_jax.merging.images import Mixed
from kind_jax.merging.plan import Settings
from kind_jax.merging.zipping import ALL, Model, Zipped, check_alike, check_place, zip_models
from kind_jax.untrusted.text import printable

HELD_OUT = 0.1
"""The share of a folder without a test split that is tested on, and not matched on."""


def models_of(bundles: Sequence[Bundle], to: int | str) -> list[Model]:
    """The models to zip.

    Raises:
      UserError: fewer than two; something that is no classifier; other architectures; a place that there is not; or
        classes that some of the models share, unless all have the same ones and everything is merged.
    """
    models = []
    for bundle in bundles:
        check_bundle(bundle, kind=ClassifyRun)
        models.append(Model(bundle.config.model, bundle.collections))
    check_alike(models)
    check_place(models[0].config, to)
    names = [bundle.class_names for bundle in bundles]
    if to == ALL:
        for bundle in bundles[1:]:
            if bundle.class_names != names[0]:
                order = ", in another order" if sorted(bundle.class_names) == sorted(names[0]) else ""
                raise UserError(
                    f"to is 'all', which averages the last layers too, but the classes of {bundle.origin} are others "
                    f"than those of {bundles[0].origin}{order}."
                )
        return models
    seen: dict[str, Path] = {}
    for bundle in bundles:
        for name in bundle.class_names:
            if name in seen:
                raise UserError(
                    f"the class {printable(name, 60)!r} is in {seen[name]} and in {bundle.origin}, but each model must "
                    "have classes of its own (to 'all' merges models of the same classes)."
                )
            seen[name] = bundle.origin
    return models


def open_tasks(bundles: Sequence[Bundle], data: str | None, split: Split) -> list[Dataset]:
    """A split of the data of each model, with its classes.

    Args:
      data: a folder of images, or the name of a packaged set, that has the classes of all models; None takes for each
        model what it was trained on.

    Raises:
      UserError: data that cannot be opened, or of other classes or sizes than the models'.
    """
    found = []
    for bundle in bundles:
        settings = bundle.config.model
        try:
            dataset = open_dataset(real(_data(bundle, data)), split)
        except UserError as error:
            raise error if data is None else UserError(f"--data {data!r}: {error}") from None
        if dataset.class_names != bundle.class_names:
            raise UserError(
                f"the classes of the data are {', '.join(dataset.class_names)[:200]}, but those of {bundle.origin} are "
                f"{', '.join(bundle.class_names)[:200]}."
            )
        wanted = (settings.size, settings.size, settings.channels)
        if dataset.image_shape != wanted:
            raise UserError(f"{bundle.origin} classifies images {wanted}, but the data has {dataset.image_shape}.")
        found.append(dataset)
    return found


def zip_bundles(
    bundles: Sequence[Bundle], images: Mixed, *, to: int | str, settings: Settings, reset: bool = True
) -> tuple[Bundle, Zipped]:
    """Merge models in hand without training, see :func:`kind_jax.merging.zip_models`.

    Args:
      images: what features are matched on, and BatchNorm's statistics are taken from.
      reset: whether these are; or else they are merged like weights.
    """
    models = models_of(bundles, to)
    found = zip_models(models, images, to=to, settings=settings)
    if reset:
        collections = batchnorm.reset(found.model.config, found.model.collections, images)
        found = dataclasses.replace(found, model=dataclasses.replace(found.model, collections=collections))
    first = bundles[0]
    names = first.class_names if to == ALL else tuple(name for bundle in bundles for name in bundle.class_names)
    config = dataclasses.replace(first.config, model=found.model.config, data=_joined(bundles, to), source=None)
    merged = dataclasses.replace(
        first, config=config, collections=found.model.collections, groups=(0,), class_names=names, composition=None
    )
    return merged, found


def _data(bundle: Bundle, data: str | None) -> DataConfig:
    if data is None:
        return bundle.config.data
    names = tuple(bundle.class_names)
    if data in get_args(PackagedSource):
        return DataConfig(source=cast(PackagedSource, data), size=bundle.config.model.size, classes=names)
    settings = bundle.config.model
    held_out = 0.0 if has_test_split(data) else HELD_OUT
    return DataConfig(
        source="folder", path=data, size=settings.size, channels=settings.channels, classes=names, held_out=held_out
    )


def _joined(bundles: Sequence[Bundle], to: int | str) -> DataConfig:
    """The data of all models as one, where it is one data set of which each has some classes; else the first one's."""
    first = bundles[0].config.data
    if to == ALL:
        return first
    rest = [dataclasses.replace(bundle.config.data, classes=None) for bundle in bundles]
    if any(each != rest[0] for each in rest):
        return first
    named = [b.config.data.classes if b.config.data.classes is not None else b.class_names for b in bundles]
    return dataclasses.replace(first, classes=tuple(name for each in named for name in each))
