"""A model of images and captions that begins from the weights of another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from kind_jax import model, partition
from kind_jax.captioning.config import CaptionRun
from kind_jax.config import is_of
from kind_jax.config.coca import CoCaConfig
from kind_jax.config.roles import COMPUTED, WHOLE, compare, settings_with
from kind_jax.deploy.bundle import Bundle, check_bundle, open_bundle
from kind_jax.errors import UserError
from kind_jax.partition import PARAMS, fingerprint
from kind_jax.train.run import load_config
from kind_jax.transferring.whole import settings_of


def defaults(base: CaptionRun, init: Path | None, directory: Path) -> CaptionRun:
    """``base`` with the network that a run in ``directory`` begins from (``init``), or began from, and its tokenizer;
    how it is computed is its own choice.

    Raises:
      UserError: ``init`` is neither a run nor an artifact of such a model.
    """
    source = _saved(directory) if init is None else settings_of(init, CaptionRun)
    return base if source is None else adopt(base, source)


def adopt(base: CaptionRun, source: CaptionRun) -> CaptionRun:
    """``base`` with the network of ``source``, as :func:`defaults` has it."""
    kept = {name: getattr(base.model, name) for name in settings_with(CoCaConfig, COMPUTED)}
    text = dataclasses.replace(base.text, tokenizer=source.text.tokenizer)
    return dataclasses.replace(base, model=dataclasses.replace(source.model, **kept), text=text)


def begin_run(
    config: CaptionRun, init: Path | None, directory: Path
) -> tuple[CaptionRun, Callable[[], partition.Collections] | None]:
    """The complete config of a run, and what gives the weights of step 0: None for random ones, or a run that goes on.

    Raises:
      UserError: a setting contradicts the model that the run begins from.
    """
    if init is None:
        saved = _saved(directory)
        return (config if saved is None else dataclasses.replace(config, source=saved.source)), None
    bundle = open_bundle(init)
    check_bundle(bundle, "--init", CaptionRun)
    config, weights = begin(config, bundle)
    if (directory / "config.json").is_file() and load_config(directory, CaptionRun).source != config.source:
        raise UserError(
            f"--init names other weights than the run in {directory} began from: give this run another --workdir, or "
            "continue that one without --init."
        )
    return config, [weights].pop


def begin(config: CaptionRun, source: Bundle) -> tuple[CaptionRun, partition.Collections]:
    """A config that knows where it begins, and the weights of step 0: those of ``source``.

    Raises:
      UserError: a setting of the network, or the tokenizer, contradicts the source's.
    """
    for name, wanted, found in compare(source.config, config, WHOLE):
        if name.startswith("model."):
            raise UserError(f"{name} is {found!r:.200}, but the model that the run begins from has {wanted!r:.200}.")
    known, given = source.config.text.tokenizer, config.text.tokenizer
    if known != given:
        raise UserError(f"text.tokenizer is {given!r}, but the model that the run begins from has {known!r}.")
    weights = {name: jax.tree.map(np.asarray, tree) for name, tree in source.collections.items()}
    partition.check_like(weights[PARAMS], model.definition(config.model)[1][PARAMS], str(source.origin))
    return dataclasses.replace(config, source=fingerprint(weights)), weights


def _saved(directory: Path) -> CaptionRun | None:
    """The config of a run that began from another model; None if there is no such run."""
    if not (directory / "config.json").is_file():
        return None
    saved = load_config(directory)  # one of another kind is refused where the settings are compared
    return saved if is_of(saved, CaptionRun) and saved.source is not None else None
