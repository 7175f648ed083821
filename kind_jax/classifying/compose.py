"""The plain classifier that serves one superclass of a gated one, exactly: no training, no gate, no other classes."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from kind_jax import partition
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config.check import check_choice, is_whole
from kind_jax.config.networks import ViTConfig
from kind_jax.deploy.bundle import Bundle, check_bundle
from kind_jax.errors import UserError
from kind_jax.partition import LEARNGENES, PARAMS, TAILORS

Form = Literal["dense", "factored"]


def serve(bundle: Bundle, superclass: int, *, form: Form = "dense") -> Bundle:
    """A classifier of the classes of one superclass, whose probabilities are those of the gated one told of it.

    Args:
      bundle: a gated classifier that has the tailors of the superclass aboard.
      superclass: its number.
      form: every factored weight multiplied out (``dense``: a plain vision transformer), or the superclass's tailors
        beside the learngenes as more components (``factored``: the smaller one where they are few).

    Raises:
      UserError: a model without gated tailors, or a superclass that is not aboard.
    """
    check_bundle(bundle, kind=ClassifyRun)
    check_choice(form, Form, "form")
    settings = bundle.config.model
    if not isinstance(settings, ViTConfig) or not settings.gated:
        raise UserError(
            f"{bundle.origin} has no gated tailors, so there is nothing to take together: export it as it is."
        )
    if not is_whole(superclass) or superclass not in bundle.groups:
        known = ", ".join(map(str, bundle.groups))
        raise UserError(f"--superclass is {superclass!r}, but it must be one that {bundle.origin} serves: {known}.")
    classes = [c for c, group in enumerate(settings.group_of_class) if group == superclass]
    learngenes, params = (partition.flatten(bundle.collections[name]) for name in (LEARNGENES, PARAMS))
    row = bundle.groups.index(superclass)
    tailors = {path: np.asarray(leaf)[row] for path, leaf in partition.flatten(bundle.collections[TAILORS]).items()}
    kept: dict[str, Any] = {}
    params = {path: np.asarray(leaf) for path, leaf in params.items()}
    for weight in sorted(path.removesuffix("/u_t") for path in tailors if path.endswith("/u_t")):
        u, s, v = (_both(learngenes, tailors, weight, name) for name in ("u", "s", "v"))
        if form == "dense":
            params[f"{weight}/kernel"] = np.asarray((u * s[..., None, :]) @ v, np.float32)
        else:
            kept |= {f"{weight}/u": u, f"{weight}/s": s, f"{weight}/v": v}
    for name in ("kernel", "bias"):
        params[f"head/{name}"] = params[f"head/{name}"][..., classes]
    factor = dataclasses.replace(
        settings.factor,
        projections=() if form == "dense" else settings.factor.projections,
        learngenes=None if form == "dense" else settings.learngenes + settings.tailors,
        tailors=None,
        rank=None,
    )
    known = bundle.config.data.classes  # of its data set, those that are left, as they were chosen
    left = tuple(c if known is None else known[c] for c in classes)
    data = dataclasses.replace(bundle.config.data, classes=left)
    model = dataclasses.replace(settings, num_classes=len(classes), groups=None, gate="none", factor=factor)
    return dataclasses.replace(
        bundle,
        config=dataclasses.replace(bundle.config, model=model, data=data),
        collections={LEARNGENES: partition.unflatten(kept), TAILORS: {}, PARAMS: partition.unflatten(params)},
        groups=(0,),
        class_names=tuple(bundle.class_names[c] for c in classes),
    )


def _both(learngenes: dict[str, Any], tailors: dict[str, Any], weight: str, name: str) -> np.ndarray:
    """Components of both, side by side: on the last axis of u and s, on the one before it of v."""
    axis = -2 if name == "v" else -1
    return np.concatenate([np.asarray(learngenes[f"{weight}/{name}"]), tailors[f"{weight}/{name}_t"]], axis=axis)
