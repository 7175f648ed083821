"""Training that goes on from a whole model: learngenes, tailors and dense parameters, classes and all.

Nothing is drawn anew and nothing is frozen but what the config says. What a pre-trained dense model was decomposed into
(:mod:`kind_jax.deploy.decompose`) becomes learngenes and tailors that way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from kind_jax import partition
from kind_jax.config import Config, ModelConfig, RunConfig, is_of
from kind_jax.config.roles import COMPUTED, WHOLE, compare, settings_with
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy import artifact, hub
from kind_jax.deploy.bundle import Bundle, check_bundle, open_bundle
from kind_jax.deploy.manifest import listed
from kind_jax.errors import UserError
from kind_jax.kinds import product_of
from kind_jax.partition import TAILORS, fingerprint
from kind_jax.train.run import load_config

C = TypeVar("C", bound=RunConfig)


def defaults(base: Config, init: Path | None, directory: Path) -> Config:
    """``base`` with the model that a run in ``directory`` begins from (``init``), or began from.

    Raises:
      UserError: ``init`` is neither a run nor an artifact, or its model does not suit the rest of ``base``.
    """
    source = saved_settings(directory) if init is None else settings_of(init)
    return base if source is None else adopt(base, source)


def begin_run(
    config: Config, init: Path | None, directory: Path
) -> tuple[Config, Callable[[], partition.Collections] | None]:
    """The complete config of a run, and what gives the weights of step 0: None for random ones, or a run that goes on.

    Raises:
      UserError: a setting or a class contradicts the model that the run begins from.
    """
    if init is None:
        saved = saved_settings(directory)
        return (config if saved is None else go_on(config, saved)), None
    bundle = open_bundle(init)
    check_bundle(bundle, "--init")
    config, weights = begin(config, bundle)
    check_same(config, directory)
    remark = check_classes(bundle, open_dataset(config.data, "train").class_names)
    del bundle
    if remark is not None:
        print(remark)
    return config, [weights].pop  # nothing else keeps them while the run trains


def settings_of(source: Path, kind: type[C] = Config, name: str = "--init") -> C:
    """The config of a run or an artifact, also of one on the Hub, without opening its weights.

    Args:
      kind: what it must be.
      name: of what names the source, for messages.

    Raises:
      UserError: it is neither, or of another kind.
    """
    if hub.is_address(source):
        config = listed(hub.manifest_file(source)).config
    elif (source / artifact.MANIFEST).is_file():
        config = artifact.read_manifest(source).config
    elif (source / "config.json").is_file():
        config = product_of(load_config(source))
    else:
        raise UserError(f"{name} is {str(source)!r}, but it must be a run or an artifact.")
    if not is_of(config, kind):
        raise UserError(f"{name} is {str(source)!r}, of the kind {config.task!r}, but it must be {kind.task!r} here.")
    return config


def adopt(config: Config, source: Config) -> Config:
    """``config`` with the model of ``source``, but its own choice of how to compute it.

    Raises:
      UserError: the model does not suit the rest of ``config``.
    """
    own = {name: getattr(config.model, name) for name in settings_with(ModelConfig, COMPUTED)}
    return dataclasses.replace(config, model=dataclasses.replace(source.model, **own))


def saved_settings(directory: Path) -> Config | None:
    """The config of a run in ``directory`` that began from a whole model; None if there is no such run."""
    if not (directory / "config.json").is_file():
        return None
    saved = load_config(directory)
    if not is_of(saved, Config):  # which is refused where the run's settings are compared
        return None
    return saved if saved.transfer.method == "none" and saved.transfer.source else None


def go_on(config: Config, saved: Config) -> Config:
    """``config`` as that of the run that saved ``saved``, whose checkpoint needs no source any more.

    Raises:
      UserError: a setting contradicts what the run began from.
    """
    check_agrees(config, saved)
    return dataclasses.replace(config, transfer=dataclasses.replace(config.transfer, source=saved.transfer.source))


def check_agrees(config: Config, source: Config) -> None:
    """Refuse settings that contradict the source's.

    Raises:
      UserError: a setting of the model or of the diffusion differs; it is named.
    """
    if config.transfer.method != "none":
        raise UserError(
            f"transfer.method is {config.transfer.method!r}, but --init goes on with a whole model and must have "
            "'none'; for all else there is kind-jax transfer."
        )
    for name, wanted, found in compare(source, config, WHOLE):
        raise UserError(f"{name} is {found!r:.200}, but the model that the run begins from has {wanted!r:.200}.")


def begin(config: Config, source: Bundle) -> tuple[Config, partition.Collections]:
    """What :func:`kind_jax.train.loop.train` needs: a config that knows its source, and the weights of step 0.

    Args:
      config: of the new run, with the model of ``source`` (:func:`adopt`).
      source: a run or an artifact that serves all of its groups.

    Raises:
      UserError: a setting contradicts the source's, or the tailors of a group are missing.
    """
    check_agrees(config, source.config)
    groups = range(source.config.model.num_groups)
    missing = sorted(set(groups) - set(source.groups))
    if missing:
        raise UserError(
            f"{source.origin} has nothing for the groups {missing!s:.100}, but a model that is trained further must "
            f"serve all of its {len(groups)} groups."
        )
    weights = source.collections
    if source.groups != tuple(groups):  # a bank in another order
        rows = [source.groups.index(group) for group in groups]
        weights = {**weights, TAILORS: jax.tree.map(lambda a: np.asarray(a)[rows], weights[TAILORS])}
    transfer = dataclasses.replace(config.transfer, source=fingerprint(weights))
    return dataclasses.replace(config, transfer=transfer), weights


def check_classes(source: Bundle, names: Sequence[str]) -> str | None:
    """Compare the classes of a model with those of the data that it is to be trained on.

    Returns:
      A remark where the model's classes have numbers for names, which says nothing about them; else None.

    Raises:
      UserError: a class has another name: each class would begin with weights of another one.
    """
    old, new = source.class_names, tuple(names)
    if len(old) != len(new) or old == new:  # another number is refused with the settings
        return None
    permuted = sorted(old) == sorted(new)
    if old == tuple(map(str, range(len(old)))) and not permuted:
        return f"the classes of {source.origin} have no names: its class 0 is taken for {new[0]!r}, and so on"
    odd = next(i for i, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1])
    how = "give data.classes in its order" if permuted else "kind-jax transfer is for new classes"
    raise UserError(
        f"--init names a model whose class {odd} is {old[odd]!r}, but class {odd} of the data is {new[odd]!r}, which "
        f"would begin with weights of another class: {how}."
    )


def check_same(config: Config, directory: Path) -> None:
    """Refuse to continue a run in ``directory`` that began from other weights than ``config``.

    Raises:
      UserError: it did.
    """
    if not (directory / "config.json").is_file():
        return
    began, now = load_config(directory, Config).transfer.source, config.transfer.source
    if began != now:
        before = f"those with SHA-256 {began[:12]}…" if began else "random weights"
        raise UserError(
            f"--init names weights with SHA-256 {now[:12]}…, but the run in {directory} began from {before}: give this "
            "run another --workdir, or continue that one without --init."
        )
