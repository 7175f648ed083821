"""OPTIMA's rounds: what the module that was distilled has brought is its reward, and a bandit chooses the next one.

K: modules. Values of a probe: the student's own loss, the difference of predictions, and the loss of each module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset, gathered
from kind_jax.distillation import bandit
from kind_jax.distillation.optima_config import FIXED, OptimaConfig
from kind_jax.errors import UserError
from kind_jax.partition import MEMORY, Collections
from kind_jax.train.task import Batch, Metrics

STATE = "rounds"
POLICIES: dict[str, bandit.Policy] = {
    "thompson": "gaussian", "dsts": "dsts", "greedy": "greedy", "window": "window", "uniform": "uniform",
    "random": "random", "fixed": "fixed",
}  # fmt: skip
"""What a run's policies are called by :mod:`kind_jax.distillation.bandit`."""
_PROBE, _ROUND = 0xF06F7070, 0xF06F7071  # of what turns draw from the run's seed; no step has such a number


def fresh(arms: int, settings: OptimaConfig) -> dict[str, Any]:
    """The state before the first round, as a nested dictionary: the bandit's, how many rounds have begun, the module
    of the round, and the values of the probe at its beginning."""
    state = bandit.init(arms, window=settings.window)
    return {
        "bandit": {name: np.asarray(value) for name, value in state._asdict().items()},
        "count": np.zeros((), np.int32),
        "arm": np.zeros((), np.int32),
        "values": np.zeros(2 + arms, np.float32),
    }


def chosen(settings: OptimaConfig, names: tuple[str, ...], state: Mapping[str, Any] | None) -> Float[Array, " K"]:
    """How much each module's loss counts in this round: 1 for that which was chosen, or all of them."""
    if settings.policy == "all":
        return jnp.ones(len(names))
    if (only := only_module(settings)) is not None:
        return jnp.asarray(np.asarray(names) == only, jnp.float32)
    assert state is not None
    return jax.nn.one_hot(state["arm"], len(names))


def only_module(settings: OptimaConfig) -> str | None:
    """The module that every round distils; None where it is chosen, or all are."""
    return settings.policy.removeprefix(FIXED) if settings.policy.startswith(FIXED) else None


def weighted(settings: OptimaConfig, values: Float[Array, " V"]) -> Float[Array, ""]:
    """What plain layerwise distillation would minimise, of the values of a probe."""
    return settings.label * values[0] + settings.prediction * values[1] + settings.layer * jnp.sum(values[2:])


def reward(
    settings: OptimaConfig, before: Float[Array, " V"], after: Float[Array, " V"], arm: Int[Array, ""]
) -> Float[Array, ""]:
    """By how much a round has brought a loss down."""

    def decrement(a: Float[Array, "*K"], b: Float[Array, "*K"]) -> Float[Array, "*K"]:
        return bandit.reward(a, b, settings.reward)

    if settings.reward_loss == "task":
        return decrement(before[0], after[0])
    if settings.reward_loss == "modules":
        return jnp.mean(decrement(before[2:], after[2:]))
    if settings.reward_loss == "self":
        return decrement(before[2 + arm], after[2 + arm])
    return decrement(weighted(settings, before), weighted(settings, after))


@dataclasses.dataclass(frozen=True)
class Rounds:
    """See :class:`kind_jax.train.task.Control`.

    Attributes:
      task: an :class:`kind_jax.distillation.optima.OptimaTask`.
    """

    task: Any

    @property
    def every(self) -> int:
        return self.task.config.optima.round

    def probe(self, dataset: Dataset) -> dict[str, np.ndarray]:
        """Held-out records where the run holds some out, else training records; drawn from the run's seed."""
        config = self.task.config
        if config.data.validation:
            dataset = open_dataset(config.data, "validation")
        size = config.optima.probe or config.train.batch
        if size > len(dataset.source):
            raise UserError(
                f"optima.probe is {size}, but it must be at most {len(dataset.source)}, the images that there are."
            )
        rows = np.sort(np.random.RandomState([config.train.seed, _PROBE]).permutation(len(dataset.source))[:size])
        records, rows = gathered(dataset.source, rows)
        found = {name: np.asarray(records[name]) for name in ("image", "label")}
        return found | {name: values[rows] for name, values in self.task.student.columns(dataset, {}).items()}

    def turn(self, collections: Collections, probe: Batch, fixed: Collections) -> tuple[Mapping[str, Any], Metrics]:
        """Reward the module of the round that has ended, and choose the next one."""
        config, names = self.task.config, self.task.names
        settings, state = config.optima, collections[MEMORY][STATE]
        probing, choosing = (jax.random.fold_in(jax.random.key(config.train.seed), n) for n in (_PROBE, _ROUND))
        values = self.task.values(collections, self.task.draw(probe, probing), fixed)
        known, count, arm = bandit.State(**state["bandit"]), state["count"], state["arm"]
        first, gain = count == 0, reward(settings, state["values"], values, arm)
        scale = settings.reward_scale
        rewarded = bandit.update(known, arm, gain, gamma=settings.gamma, reward_scale=scale, clip=settings.clip)
        known = jax.tree.map(lambda old, new: jnp.where(first, old, new), known, rewarded)
        policy, prior, only = POLICIES[settings.policy.partition(":")[0]], _prior(settings), only_module(settings)
        which = 0 if only is None else names.index(only)
        following = bandit.choose(
            policy, known, jax.random.fold_in(choosing, count), count, warmup=settings.warmup, fixed=which, **prior
        )
        variant = policy if policy in ("dsts", "window") else "gaussian"
        mean, deviation = bandit.posterior(known, variant=variant, **prior)
        figures = {
            "arm": following, "rewarded": jnp.where(first, jnp.nan, arm), "reward": jnp.where(first, jnp.nan, gain),
            "probe": weighted(settings, values), "probe_own": values[0], "probe_prediction": values[1],
        }  # fmt: skip
        for i, name in enumerate(names):
            figures |= {f"probe_{name}": values[2 + i], f"mean_{name}": mean[i], f"deviation_{name}": deviation[i]}
        moved = {"bandit": known._asdict(), "count": count + 1, "arm": following, "values": values}
        return {MEMORY: {**collections[MEMORY], STATE: moved}}, figures


def _prior(settings: OptimaConfig) -> dict[str, Any]:
    return {"kappa0": settings.kappa, "mu0": settings.mean, "sigma": settings.sigma, "tau_max": settings.tau}
