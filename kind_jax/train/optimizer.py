"""AdamW, SGD or Muon, with a rate, a decay and a freeze switch for each collection, and rules for single leaves."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kind_jax.config import OptimizerConfig
from kind_jax.partition import TAILORS
from kind_jax.train.freeze import FROZEN, Manner, labels, manners
from kind_jax.train.lazy import keep_absent, scale_by_lazy_adam

_MUON_SIZE = 0.2  # root mean square of an update, as AdamW's are (Liu et al. 2025, arXiv 2502.16982)


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up from ``warmup_start``, then constant or decay to ``minimum`` at ``steps``."""
    peak = config.learning_rate
    if config.schedule == "deit":
        return _deit(config, steps)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(steps - config.warmup, 1), alpha=config.minimum)
    else:
        after = optax.constant_schedule(peak)
    if not config.warmup:
        return after
    rise = optax.linear_schedule(config.warmup_start * peak, peak, config.warmup)
    return optax.join_schedules([rise, after], [config.warmup])


def _deit(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """timm's cosine scheduler as DeiT's loop calls it: after each epoch, with the number of the one that has ended."""
    assert config.epoch is not None
    span, peak = config.epoch, config.learning_rate
    epochs, warmup = max(-(-steps // span), 1), config.warmup // span
    start, least = config.warmup_start * peak, config.minimum * peak

    def rate(count: Any) -> Any:
        t = jnp.maximum(count // span - 1, 0).astype(jnp.float32)
        rising = start + t * (peak - start) / max(warmup, 1)
        falling = least + (peak - least) * (1 + jnp.cos(jnp.pi * t / epochs)) / 2
        return jnp.where(t < warmup, rising, falling)

    return rate


def make_optimizer(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """The transformation over a model's collections.

    A frozen leaf has ``set_to_zero`` and hence no moments. ``update`` takes ``present``, bool [groups]: the groups that
    some sample of the batch switches on.
    """

    def of(manner: Manner) -> optax.GradientTransformation:
        decay, share = manner.setting(config, "weight_decay"), manner.setting(config, "learning_rate")

        def rate(count: Any) -> Any:
            return share * schedule(count)

        if config.method == "muon" and manner.collection != TAILORS:
            return optax.contrib.muon(
                rate, beta=config.momentum, nesterov=config.nesterov, weight_decay=decay, adam_weight_decay=decay,
                adam_b1=config.b1, adam_b2=config.b2, eps=config.eps, consistent_rms=_MUON_SIZE,
                muon_weight_dimension_numbers=_matrices,
            )  # fmt: skip
        lazy = manner.collection == TAILORS and config.lazy_tailors
        if config.method == "sgd":
            # Decay before the momentum, as PyTorch's SGD and the recipes for ResNets have it.
            parts = [_decay(decay), optax.trace(config.momentum, config.nesterov)]
        else:
            adam = scale_by_lazy_adam if lazy else optax.scale_by_adam
            parts = [adam(b1=config.b1, b2=config.b2, eps=config.eps), _decay(decay)]
        return optax.chain(
            *parts,
            optax.scale_by_learning_rate(rate),
            keep_absent() if lazy else optax.identity(),
        )

    transforms: dict[Hashable, optax.GradientTransformation] = {FROZEN: optax.set_to_zero()}
    transforms.update((str(manner), of(manner)) for manner in manners(config))
    return optax.chain(
        optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(),
        optax.multi_transform(transforms, functools.partial(labels, config)),
    )


def _decay(decay: float) -> optax.GradientTransformation:
    return optax.add_decayed_weights(decay) if decay else optax.identity()


def _matrices(params: Any) -> Any:
    """For each matrix of a block or a stage, which of its axes are inputs and which outputs; None for all else.

    A matrix is a kernel, or either of the factors U and V of learngenes, each for itself. Stacked blocks have their
    depth on the first axis of three; a convolution has height, width and inputs on the first three of four.
    """

    def of(path: tuple[Any, ...], leaf: Any) -> Any:
        names = [str(getattr(key, "key", key)) for key in path]
        if names[-1] not in ("kernel", "u", "v") or not {"blocks", "stages"} & set(names) or leaf.ndim < 2:
            return None
        inputs = (0, 1, 2) if leaf.ndim == 4 else leaf.ndim - 2
        return optax.contrib.MuonDimensionNumbers(reduction_axis=inputs, output_axis=leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(of, params)
