"""Sampling from composed models on an accelerator, against the dense model of the same width and depth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_cases import SIZES, settings_of
from accelerator_log import Log, Settings, WrongError
from cases import compiled, dense
from harness import Contestant, race

from kind_jax import chips, model
from kind_jax.config import Config, change
from kind_jax.deploy.bundle import Bundle
from kind_jax.deploy.compose import compose
from kind_jax.deploy.cost import total
from kind_jax.sampling import draw_batch

STEPS, IMAGES, CLASSES = 10, 32, 4
BUDGETS: dict[str, dict[str, Any]] = {
    "composed, dense": {"form": "dense"},
    "composed, half of the FLOPs": {"share": 0.5},
    "composed, rank 0.3 of the width": {"rank": 0.3, "form": "factored"},
    "composed, rank 0.2 of the width": {"rank": 0.2, "form": "factored"},
    "composed, rank 0.1 of the width": {"rank": 0.1, "form": "factored"},
}


def measure(log: Log, settings: Settings) -> None:
    """Every size."""
    for size in settings.sizes:
        _measure(size, log, settings)


def _measure(size: str, log: Log, settings: Settings) -> None:
    """The dense model, then class 0 composed at each budget out of a KIND model with N_T of 5/64 of the width."""
    config = change(settings_of(size, tailors=5 * SIZES[size].width // 64), model={"num_classes": CLASSES})
    plain = dense(config)
    made: dict[str, Any] = {}
    budgets = list(BUDGETS)[:: 2 if size == "tiny" else 1]
    for name in ("dense", *budgets):
        if name == "dense" or settings.wants(f"{size}: {name}"):
            log.case("sampling", f"{size}: {name}", lambda name=name: _case(name, config, plain, made, settings))


def _case(name: str, config: Config, plain: Config, made: dict[str, Any], settings: Settings) -> dict[str, Any]:
    if name == "dense":
        contestant = _contestant(plain, _weights(plain), made, "dense")
        made["base"] = contestant
        return _figures(plain, race([contestant], rounds=settings.rounds, warmup=1).seconds["dense"])
    if "bundle" not in made:
        made["bundle"] = as_bundle(config, _weights(config))
    wanted, width, whole = dict(BUDGETS[name]), config.model.width, total(plain.model).flops
    if "rank" in wanted:
        wanted["rank"] = max(round(wanted["rank"] * width), 1)
    if "share" in wanted:
        wanted["max_flops"] = round(wanted.pop("share") * whole)
    # Ranked by energy as trained: an SVD of every weight takes the host minutes, and the shapes are the same.
    result = compose(made["bundle"], classes=[0], criterion="energy", **wanted)
    contestant = _contestant(result.bundle.config, result.bundle.collections, made, "ours")
    rivals = [made["base"]] if "base" in made else []
    raced = race([contestant, *rivals], rounds=settings.rounds, warmup=1)
    share = result.after.flops / whole
    figures = _figures(result.bundle.config, raced.seconds["ours"]) | {"flops_ratio": share}
    if rivals:
        ratio = raced.ratio("ours", "dense")
        figures |= {"against": "dense", "ratio": dataclasses.asdict(ratio)}
        # How much of the FLOPs saved is saved as time.
        figures["realised"] = None if share >= 0.99 else (1 - ratio.median) / (1 - share)
    if name == "composed, dense":
        figures |= _exact(config, made)
    return figures


def _weights(config: Config) -> Any:
    """Normal numbers of about the size of trained weights, on the host, where composing happens."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: np.float32(0.02) * rng.standard_normal(leaf.shape, np.float32), model.definition(config.model)[1]
    )


def as_bundle(config: Config, weights: Any) -> Bundle:
    """Weights as what the verbs after training take."""
    names = tuple(map(str, range(config.model.num_classes)))
    groups = tuple(range(config.model.num_groups))
    return Bundle(
        config=config, collections=weights, groups=groups, class_names=names, weights="raw", step=0, origin=Path()
    )  # fmt: skip


def _contestant(config: Config, weights: Any, made: dict[str, Any], name: str) -> Contestant:
    """The whole sampler on a batch of class 0, compiled.

    Raises:
      WrongError: its images are not finite.
    """
    sampler = dataclasses.replace(config.sampler, steps=STEPS)
    labels = jnp.zeros(IMAGES if config.model.width > 64 else 4, jnp.int32)
    gate = model.class_gate(config.model, (0,) if config.model.num_groups else None)
    gates = [gate(labels, jnp.full(labels.shape, null)) for null in (False, True)]
    arguments = (jax.device_put(weights), labels, *gates, np.uint32(0), np.uint32(0))
    program, _ = compiled(lambda *each: draw_batch(config, sampler, *each), *arguments)
    images = np.asarray(program(*arguments))
    if not np.isfinite(images).all():
        raise WrongError("some images are not finite")
    made[f"images, {name}"] = images
    return Contestant(name=name, step=lambda: jax.block_until_ready(program(*arguments)))


def _figures(config: Config, seconds: np.ndarray) -> dict[str, Any]:
    median, count = float(np.median(seconds)), IMAGES if config.model.width > 64 else 4
    flops = total(config.model, 1).flops * count * STEPS
    top = chips.peak_flops(jax.devices()[0].device_kind)
    return {
        "seconds": median,
        "images": count,
        "sampler_steps": STEPS,
        "images_per_second": count / median,
        "flops": flops,
        "mfu": None if top is None else flops / median / top,
    }


def _exact(config: Config, made: dict[str, Any]) -> dict[str, Any]:
    """How far the images of a model that was composed without a budget are from its source's, in bfloat16."""
    _contestant(config, made["bundle"].collections, made, "source")
    ours, source = made["images, ours"], made["images, source"]
    return {"difference_from_source": float(np.linalg.norm(ours - source) / np.linalg.norm(source))}
