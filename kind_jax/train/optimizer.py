"""AdamW with a rate, a decay and a freeze switch for each collection."""

from __future__ import annotations

import functools
from collections.abc import Hashable

import optax

from kind_jax.config import OptimizerConfig
from kind_jax.partition import ADAPTERS, COLLECTIONS, TAILORS
from kind_jax.train.freeze import FROZEN, labels
from kind_jax.train.lazy import keep_absent, scale_by_lazy_adam


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up from ``warmup_start``, then constant or cosine decay to ``minimum`` at ``steps``."""
    peak = config.learning_rate
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(steps - config.warmup, 1), alpha=config.minimum)
    else:
        after = optax.constant_schedule(peak)
    if not config.warmup:
        return after
    rise = optax.linear_schedule(config.warmup_start * peak, peak, config.warmup)
    return optax.join_schedules([rise, after], [config.warmup])


def make_optimizer(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """The transformation over {'learngenes', 'tailors', 'params'} and, where there are some, 'adapters'.

    A frozen leaf has ``set_to_zero`` and hence no moments. ``update`` takes ``present``, bool [groups]: the groups that
    some sample of the batch switches on.
    """

    def of(name: str) -> optax.GradientTransformation:
        settings = getattr(config, name)
        lazy = name == TAILORS and config.lazy_tailors
        adam = scale_by_lazy_adam if lazy else optax.scale_by_adam
        return optax.chain(
            adam(b1=config.b1, b2=config.b2, eps=config.eps),
            optax.add_decayed_weights(settings.weight_decay) if settings.weight_decay else optax.identity(),
            optax.scale_by_learning_rate(lambda count: settings.learning_rate * schedule(count)),
            keep_absent() if lazy else optax.identity(),
        )

    transforms: dict[Hashable, optax.GradientTransformation] = {FROZEN: optax.set_to_zero()}
    transforms.update((name, of(name)) for name in (*COLLECTIONS, ADAPTERS))
    return optax.chain(
        optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(),
        optax.multi_transform(transforms, functools.partial(labels, config)),
    )
