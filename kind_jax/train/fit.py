"""Training from Python: the loop of the command line, with data and listeners of the program's own."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kind_jax import partition
from kind_jax.config import RunConfig
from kind_jax.config.check import check_choice, check_path, is_whole, require
from kind_jax.data import own
from kind_jax.data.own import OwnData
from kind_jax.train.loop import Summary, train
from kind_jax.train.metrics import Callback
from kind_jax.train.resume import Resume


def fit(
    config: RunConfig,
    directory: str | Path,
    *,
    data: OwnData | None = None,
    callbacks: Sequence[Callback] = (),
    stop_after: int | None = None,
    resume: Resume = "auto",
    initial: Callable[[], partition.Collections] | None = None,
) -> Summary:
    """Train until ``train.steps``, continuing the run in ``directory`` if there is one.

    Args:
      config: the run's settings, as :func:`kind_jax.preset` or :func:`kind_jax.load_file` give them.
      directory: the run's folder: config.json, metrics.jsonl, checkpoints/ and what its task shows.
      data: records of this program (:func:`kind_jax.records`), in place of what ``config.data`` says.
      callbacks: each is called as ``callback(step, metrics)`` with what metrics.jsonl gets, every ``train.log_every``
        steps, and with what was measured at a step. Of several hosts the first one calls. What a callback raises ends
        the run, which then goes on from its last checkpoint.
      stop_after: stop after this step; the run can be continued.
      resume: ``auto`` continues a run that is there, ``never`` refuses to, ``always`` refuses to begin a new one, and
        ``extend`` continues one with more steps or other rates.
      initial: gives the weights of step 0; None draws them from the seed.

    Raises:
      UserError: the folder, the data set, the mesh or a setting does not fit.
    """
    require(isinstance(config, RunConfig), "config", config, "settings, as kind_jax.preset(name) gives")
    directory = check_path(directory, "directory")
    require(data is None or isinstance(data, OwnData), "data", data, "what kind_jax.records(...) gives, or None")
    whole = stop_after is None or (is_whole(stop_after) and stop_after >= 1)
    require(whole, "stop_after", stop_after, "1 or more")
    several = isinstance(callbacks, Sequence) and all(callable(each) for each in callbacks)
    require(several, "callbacks", callbacks, "a list of functions")
    check_choice(resume, Resume, "resume")
    if data is not None:
        config = dataclasses.replace(config, data=own.as_config(config.data, data.train))
    with own.given(data), _quiet_orbax():
        return train(
            config, directory, stop_after=stop_after, resume=resume, initial=initial, callbacks=callbacks
        )  # fmt: skip


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Without Orbax's warnings about what every save of ours is like; what it fails at reaches us as exceptions."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(max(logging.ERROR, before))
    try:
        yield
    finally:
        logger.setLevel(before)
