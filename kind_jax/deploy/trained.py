"""The model of a training loop of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from kind_jax import adapters
from kind_jax.config import Config, is_of
from kind_jax.config.check import require
from kind_jax.deploy.bundle import Bundle, groups_of
from kind_jax.kinds import product_of
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.state import TrainState
from kind_jax.train.task import Task


def trained(task: Task, state: TrainState, class_names: Sequence[str]) -> Bundle:
    """What ``state`` has learnt, with averaged weights where ``train.ema`` is on, as a bundle.

    Args:
      task: whose step made the state.
      class_names: of the data set, one for each class.

    Raises:
      UserError: another number of names than the model has classes.
    """
    config, names = task.config, tuple(map(str, class_names))
    known = config.model.num_classes  # pyright: ignore[reportAttributeAccessIssue]
    require(len(names) == known, "class_names", names, f"{known} names, one for each class of the model")
    product = product_of(config)
    found = states.averaged(config, state)
    if product is not config:  # a teacher's part, say, is no part of what was learnt
        found = {name: found[name] for name in task_of(product).shapes()}
    if is_of(product, Config):
        found = adapters.merge(product.transfer, found)
    return Bundle(
        config=product,
        collections=jax.tree.map(np.asarray, found),
        groups=getattr(config, "aboard", None) or groups_of(product, None),
        class_names=names,
        weights="raw" if config.train.ema is None else "ema",
        step=int(state.step),
        origin=Path(),
    )
