"""A classifier that begins from the weights of another one: its own classes again, or others with a fresh head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from kind_jax import model, partition
from kind_jax.classifying.config import HEAD, ClassifyRun
from kind_jax.config import is_of
from kind_jax.config.networks import Network, ViTConfig
from kind_jax.config.roles import COMPUTED, TRANSFER, WHOLE, Role, compare, settings_with
from kind_jax.config.training import CollectionConfig
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy.bundle import Bundle, check_bundle, open_bundle
from kind_jax.errors import UserError
from kind_jax.partition import LEARNGENES, PARAMS, TAILORS, fingerprint
from kind_jax.train.run import load_config
from kind_jax.transferring.whole import check_classes, settings_of

VIEW = ("size", "channels", "resolution", "colour")
"""Settings of the images that are given, and of what the network sees of them."""


def defaults(base: ClassifyRun, init: Path | None, directory: Path) -> ClassifyRun:
    """``base`` with the network that a run in ``directory`` begins from (``init``), or began from.

    Its own choices are how the network is computed, and how it is regularised; where its head is fresh, also how many
    classes there are; and if it then says how the network sees images (``resolution``, ``colour``), also what images.

    Raises:
      UserError: ``init`` is neither a run nor an artifact of a classifier, or of one for other channels.
    """
    source = _saved(directory) if init is None else settings_of(init, ClassifyRun)
    return base if source is None else adopt(base, source)


def adopt(base: ClassifyRun, source: ClassifyRun) -> ClassifyRun:
    """``base`` with the network of ``source``, as :func:`defaults` has it."""
    kept = {}
    if type(source.model) is type(base.model):
        own = settings_with(type(source.model), COMPUTED | {Role.TRAINING})
        kept = {name: getattr(base.model, name) for name in own}
    if base.head == "fresh":
        kept["num_classes"] = base.model.num_classes
        if base.model.resolution is not None or base.model.colour:
            _check_channels(base.model, source.model)
            kept |= {name: getattr(base.model, name) for name in VIEW}
    return dataclasses.replace(base, model=dataclasses.replace(source.model, **kept))


def begin_run(
    config: ClassifyRun, init: Path | None, directory: Path
) -> tuple[ClassifyRun, Callable[[], partition.Collections] | None]:
    """The complete config of a run, and what gives the weights of step 0: None for random ones, or a run that goes on.

    Raises:
      UserError: a setting or a class contradicts the model that the run begins from.
    """
    if init is None:
        saved = _saved(directory)
        return (config if saved is None else dataclasses.replace(config, source=saved.source)), None
    bundle = open_bundle(init)
    check_bundle(bundle, "--init", ClassifyRun)
    config, weights = begin(config, bundle)
    if (directory / "config.json").is_file():
        check_beginning(load_config(directory, ClassifyRun), config, directory)
    if config.head == "keep":
        remark = check_classes(bundle, open_dataset(config.data, "train").class_names)
        if remark is not None:
            print(remark)
    return config, [weights].pop


def begin(config: ClassifyRun, source: Bundle) -> tuple[ClassifyRun, partition.Collections]:
    """A config that knows where it begins, and the weights of step 0: those of ``source``, perhaps with a fresh head.

    Raises:
      UserError: a setting of the network contradicts the source's, or the tailors of a superclass are missing.
    """
    fresh = config.head == "fresh"
    agree = WHOLE - ({Role.CLASSES, Role.IMAGES} if fresh else set())
    if type(config.model) is not type(source.config.model):
        raise UserError(
            f"model.network is {config.model.network!r}, but the model that the run begins from is a "
            f"{source.config.model.network!r}."
        )
    for name, wanted, found in compare(source.config, config, agree):
        if name.startswith("model.") and not (fresh and name.removeprefix("model.") in VIEW):
            raise UserError(f"{name} is {found!r:.200}, but the model that the run begins from has {wanted!r:.200}.")
    if fresh:
        _check_view(config.model, source.config.model)
    if fresh and source.config.model.gated:
        raise UserError("head is 'fresh', but a gated classifier's classes are those of its superclasses: keep it.")
    if source.groups != tuple(range(source.config.model.num_groups)):
        raise UserError(f"{source.origin} lacks the tailors of some superclasses, but training needs all of them.")
    weights = {name: jax.tree.map(np.asarray, tree) for name, tree in source.collections.items()}
    if fresh:
        head = model.init(config.model, config.train.seed)[PARAMS][HEAD]
        weights[PARAMS] = {**weights[PARAMS], HEAD: head}
    partition.check_like(weights[PARAMS], model.definition(config.model)[1][PARAMS], str(source.origin))
    assert set(weights) >= {PARAMS, TAILORS}
    return dataclasses.replace(config, source=fingerprint(weights)), weights


def check_beginning(saved: ClassifyRun, config: ClassifyRun, directory: Path) -> None:
    """Refuse to continue the run in ``directory`` from other weights than those that it began from.

    Raises:
      UserError: they are others.
    """
    if saved.source != config.source:
        raise UserError(
            f"--init names other weights than the run in {directory} began from: give this run another --workdir, or "
            "continue that one without --init."
        )


def _check_channels(config: Network, source: Network) -> None:
    found, wanted = config.seen_channels, source.seen_channels
    if found != wanted:
        how = "; model.colour shows images in grey in three channels" if (found, wanted) == (1, 3) else ""
        raise UserError(
            f"model.channels is {config.channels}, but the model that the run begins from sees {wanted} channels{how}."
        )


def _check_view(config: Network, source: Network) -> None:
    """Refuse images that the weights of ``source`` cannot be shown."""
    _check_channels(config, source)
    if isinstance(config, ViTConfig) and config.seen_size != source.seen_size:
        raise UserError(
            f"model.{config.seen} is {config.seen_size}, but the positions of the model that the run begins from are "
            f"for images of {source.seen_size} pixels: model.resolution {source.seen_size} scales others to that."
        )


def frozen(source: ClassifyRun) -> ClassifyRun:
    """The settings of a transfer, before any is given: those of ``source``, with all frozen but tailors and head.

    Raises:
      UserError: the source has no factored weights.
    """
    if not (isinstance(source.model, ViTConfig) and source.model.gated):
        raise UserError(
            "the model has no learngenes beside tailors, so there is nothing to transfer; kind-jax train --init MODEL "
            "--head fresh trains all of it for other classes."
        )
    optimizer = dataclasses.replace(
        source.optimizer,
        learngenes=CollectionConfig(freeze=True),
        params=dataclasses.replace(source.optimizer.params, freeze=True, thaw=(HEAD,)),
    )
    return dataclasses.replace(source, optimizer=optimizer, head="fresh", source=None)


def transferred(config: ClassifyRun, source: Bundle) -> tuple[ClassifyRun, partition.Collections]:
    """A config that knows where it begins, and the weights of step 0: fresh ones, but for the learngenes and all dense
    weights besides the head, which are those of ``source``.

    Raises:
      UserError: the shared weights of the two networks differ.
    """
    if config.head != "fresh":
        raise UserError(f"head is {config.head!r}, but it must be 'fresh' for a transfer, whose classes are others.")
    for name, wanted, found in compare(source.config, config, TRANSFER | {Role.IMAGES}):
        if name.startswith("model."):
            raise UserError(f"{name} is {found!r:.200}, but the model that is transferred has {wanted!r:.200}.")
    weights = model.init(config.model, config.train.seed)
    body = {name: tree for name, tree in source.collections[PARAMS].items() if name != HEAD}
    weights = {
        **weights,
        LEARNGENES: jax.tree.map(np.asarray, source.collections[LEARNGENES]),
        PARAMS: {**weights[PARAMS], **jax.tree.map(np.asarray, body)},
    }
    partition.check_like(weights[LEARNGENES], model.definition(config.model)[1][LEARNGENES], str(source.origin))
    return dataclasses.replace(config, source=fingerprint(source.collections[LEARNGENES])), weights


def _saved(directory: Path) -> ClassifyRun | None:
    """The config of a run that began from another model; None if there is no such run."""
    if not (directory / "config.json").is_file():
        return None
    saved = load_config(directory)  # one of another kind is refused where the settings are compared
    return saved if is_of(saved, ClassifyRun) and saved.source is not None else None
