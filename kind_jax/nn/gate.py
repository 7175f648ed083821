"""The gate: which groups' tailors are on for a sample, and how much.

One mechanism serves every use. KIND's class gate (ICML 2025: W(c) = learngenes + the tailors of c) is k = 1 with weight
1; the null class is weight 0; mixtures, soft gates and ablations are other values of the same two arrays.

Dimensions: B samples (or 1, for a gate that all samples share), k groups that are on for a sample.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kind_jax.errors import UserError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gate:
    """Rows of the tailor bank and their weights, for each sample or, with a leading 1, for all samples alike.

    While a batch is stacked in micro-batches, there is an axis before.
    """

    index: Int[Array, "*parts B k"]
    weight: Float[Array, "*parts B k"]


def one_group(rows: Int[Array | np.ndarray, " B"]) -> Gate:
    """The hard class gate: sample b switches on bank row ``rows[b]``; a negative row switches everything off."""
    rows = jnp.asarray(rows, jnp.int32)
    on = (rows >= 0).astype(jnp.float32)
    return Gate(jnp.maximum(rows, 0)[:, None], on[:, None])


def learngenes_only() -> Gate:
    """Every tailor off, for all samples."""
    return Gate(jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1), jnp.float32))


def all_groups(groups: int, weight: float = 1.0) -> Gate:
    """Every group of the bank on with the same weight, for all samples."""
    return Gate(jnp.arange(groups)[None, :], jnp.full((1, groups), weight, jnp.float32))


def mixture(weights: Float[Array | np.ndarray, "B groups"]) -> Gate:
    """A soft gate over the whole bank, one weight per group."""
    index = jnp.broadcast_to(jnp.arange(weights.shape[1])[None, :], weights.shape)
    return Gate(index, jnp.asarray(weights))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassGate:
    """Maps class labels to gates over a particular tailor bank.

    Attributes:
      row_of_class: the bank row of each class's group; -1 where the bank does not hold it.
      groups: rows in the bank.
      null: what the null class switches on (``ModelConfig.null_gate``).
    """

    row_of_class: tuple[int, ...]
    groups: int
    null: Literal["learngenes", "all", "mean", "keep"] = "learngenes"

    def check(self, classes: tuple[int, ...]) -> None:
        """Refuse classes that the model does not know or whose tailors are not in the bank.

        Raises:
          UserError: naming the class and what there is instead.
        """
        served = [c for c, row in enumerate(self.row_of_class) if row >= 0]
        for c in classes:
            if not 0 <= c < len(self.row_of_class):
                raise UserError(f"class is {c}, but it must be between 0 and {len(self.row_of_class) - 1}.")
            if self.row_of_class[c] < 0:
                raise UserError(f"class is {c}, but its tailors are not loaded; the loaded ones serve {served}.")

    def __call__(self, labels: Int[Array, " B"], dropped: Bool[Array, " B"]) -> Gate:
        """Gates for ``labels``; where ``dropped``, the gate of the null class.

        Labels beyond the known classes (the null label) count as switched off.
        """
        table = jnp.array([*self.row_of_class, -1], jnp.int32)
        own = one_group(table[jnp.clip(labels, 0, len(self.row_of_class))])
        if self.null == "keep":
            return own
        kept = Gate(own.index, own.weight * (~dropped)[:, None])
        if self.null == "learngenes":
            return kept
        every = all_groups(self.groups, 1.0 if self.null == "all" else 1.0 / self.groups)
        shape = (labels.shape[0], self.groups)
        return Gate(
            jnp.concatenate([kept.index, jnp.broadcast_to(every.index, shape)], axis=1),
            jnp.concatenate([kept.weight, jnp.broadcast_to(every.weight, shape) * dropped[:, None]], axis=1),
        )
