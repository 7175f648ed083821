"""The kinds of runs that there are: for each the class of its settings and its task, imported when a run of it is.

A config saves the name of its kind; the core imports none of them. A new kind is a line here.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """Where to find what, as ``module:name``.

    Attributes:
      config: a :class:`kind_jax.config.RunConfig` whose ``task`` is the name of this kind.
      task: makes a :class:`kind_jax.train.task.Task` of such a config.
    """

    config: str
    task: str


DEFAULT = "diffusion"  # of configs that were saved when there was no other

KINDS = {DEFAULT: Kind(config="kind_jax.config.run:Config", task="kind_jax.diffusing.task:DiffusionTask")}


def load(where: str) -> Any:
    """What ``module:name`` names."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)
