"""The kinds of runs that there are: for each the class of its settings and its task, imported when a run of it is.

A config saves the name of its kind; the core imports none of them. A new kind is a line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """Where to find what, as ``module:name`` or ``module``.

    Attributes:
      config: a :class:`kind_jax.config.RunConfig` whose ``task`` is the name of this kind.
      task: makes a :class:`kind_jax.train.task.Task` of such a config.
      start: how a run begins from another model, a module like :mod:`kind_jax.transferring.whole`; None: never.
      product: what a run makes, where that is a model of another kind: gives the settings of a run that makes the same
        of its own. Whoever opens a run finds that model, and nothing that the run has beside it.
      held: what an artifact holds, where that is not all of the network ``config.model``: a module with ``shapes`` and
        ``least_parameters`` of a config.
      verbs: commands that are others for this kind than for diffusion: for each its module, like those in
        :mod:`kind_jax.commands`.
    """

    config: str
    task: str
    start: str | None = None
    product: str | None = None
    held: str | None = None
    verbs: Mapping[str, str] = {}


DEFAULT = "diffusion"  # of configs that were saved when there was no other

# Verbs that are about a model, not a module.
_NEED_ALL = ("evaluate", "sample", "play", "synthesize", "compose", "transfer", "grow", "shrink", "inspect")

_CLASSIFIERS = {
    "evaluate": "kind_jax.classifying.commands.evaluate",
    "report": "kind_jax.classifying.commands.report",
    "compose": "kind_jax.classifying.commands.compose",
    "transfer": "kind_jax.classifying.commands.transfer",
}

_NEED_CLASSES = ("sample", "play", "synthesize", "compose", "transfer", "grow", "shrink")

_CAPTIONS = dict.fromkeys(_NEED_CLASSES, "kind_jax.captioning.commands.other") | {
    "evaluate": "kind_jax.captioning.commands.evaluate",
    "report": "kind_jax.captioning.commands.report",
}

KINDS = {
    DEFAULT: Kind(
        config="kind_jax.config.run:Config",
        task="kind_jax.diffusing.task:DiffusionTask",
        start="kind_jax.transferring.whole",
    ),
    "classification": Kind(
        config="kind_jax.classifying.config:ClassifyRun",
        task="kind_jax.classifying.task:ClassifyTask",
        start="kind_jax.classifying.start",
        verbs=_CLASSIFIERS,
    ),
    "distillation": Kind(
        config="kind_jax.distillation.config:DistilRun",
        task="kind_jax.distillation.task:DistilTask",
        start="kind_jax.distillation.start",
        product="kind_jax.distillation.config:student_run",
        verbs=_CLASSIFIERS | {"report": "kind_jax.distillation.commands.report"},
    ),
    f"{DEFAULT}-distillation": Kind(
        config="kind_jax.distillation.generator_config:GeneratorRun",
        task="kind_jax.distillation.generator_task:GeneratorTask",
        product="kind_jax.distillation.generator_config:composed_run",
    ),
    "captioning": Kind(
        config="kind_jax.captioning.config:CaptionRun",
        task="kind_jax.captioning.task:CaptionTask",
        start="kind_jax.captioning.start",
        verbs=_CAPTIONS,
    ),
    **{
        f"{whole}-optima": Kind(
            config=f"kind_jax.distillation.optima_config:{config}",
            task="kind_jax.distillation.optima:OptimaTask",
            start="kind_jax.distillation.optima_start",
            product="kind_jax.distillation.optima_config:student_run",
            verbs=verbs | {"report": "kind_jax.distillation.commands.optima_report"},
        )
        for whole, config, verbs in (
            ("classification", "ClassifierOptimaRun", _CLASSIFIERS),
            (DEFAULT, "DiffusionOptimaRun", {}),
            ("captioning", "CaptionOptimaRun", _CAPTIONS),
        )
    },
    **{
        f"{whole}-module": Kind(
            config=f"kind_jax.assembling.config:{config}",
            task="kind_jax.assembling.task:ModuleTask",
            start="kind_jax.assembling.start",
            held="kind_jax.assembling.held",
            verbs={"report": "kind_jax.assembling.commands.report"}
            | dict.fromkeys(_NEED_ALL, "kind_jax.assembling.commands.part"),
        )
        for whole, config in (("classification", "ClassifierModuleRun"), (DEFAULT, "DiffusionModuleRun"))
    },
}


def config_classes() -> list[type]:
    """The settings of all kinds of runs."""
    return [load(kind.config) for kind in KINDS.values()]


def product_of(config: Any) -> Any:
    """The settings of a run that makes the same model as one with these, and nothing beside it."""
    where = KINDS[config.task].product
    return config if where is None else load(where)(config)


def load(where: str) -> Any:
    """What ``module:name`` names."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)
