"""The gate: which groups' tailors are on for a sample, and how much.

One mechanism serves every use. KIND's class gate (ICML 2025: W(c) = learngenes + the tailors of c) is k = 1 with weight
1; the null class is weight 0; mixtures, soft gates and ablations are other values of the same two arrays.

Dimensions: B samples (or 1, for a gate that all samples share), k groups that are on for a sample, G cohorts:
B / G samples in a row that name the same rows.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from kind_jax.config.check import is_whole
from kind_jax.errors import UserError
from kind_jax.untrusted.text import short


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gate:
    """Rows of the tailor bank and their weights, for each sample or, with a leading 1, for all samples alike.

    While a batch is stacked in micro-batches, there is an axis before.

    Attributes:
      index: of each sample, or of each cohort: G divides B.
      weight: of each sample.
      aligned: whether row g of the bank is that of cohort g, so that nothing has to be looked up; k is 1 then.
    """

    index: Int[Array, "*parts G k"]
    weight: Float[Array, "*parts B k"]
    aligned: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def by_cohort(self) -> bool:
        """Whether several samples share each row of ``index``."""
        return self.index.shape[0] != self.weight.shape[0]


def one_group(rows: Int[Array | np.ndarray, " B"]) -> Gate:
    """The hard class gate: sample b switches on bank row ``rows[b]``; a negative row switches everything off.

    These are rows of the tailor bank, which is what is aboard; :meth:`kind_jax.Bundle.gate` takes classes.

    Raises:
      UserError: rows that are not whole numbers, or have another number of dimensions than one.
    """
    _check(rows, "rows of a gate", "iu", 1, "whole numbers with one dimension")
    rows = jnp.asarray(rows, jnp.int32)
    on = (rows >= 0).astype(jnp.float32)
    return Gate(jnp.maximum(rows, 0)[:, None], on[:, None])


def learngenes_only() -> Gate:
    """Every tailor off, for all samples."""
    return Gate(jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1), jnp.float32))


def all_groups(groups: int, weight: float = 1.0) -> Gate:
    """Every group of the bank on with the same weight, for all samples.

    Raises:
      UserError: a number of groups below 1, or a weight that is not finite.
    """
    if not is_whole(groups) or groups < 1:
        raise UserError(f"groups of a gate are {short(groups)}, but they must be 1 or more.")
    _check(weight, "the weight of a gate", "fiu", 0, "one number")
    return Gate(jnp.arange(groups)[None, :], jnp.full((1, groups), weight, jnp.float32))


def mixture(weights: Float[Array | np.ndarray, "B groups"]) -> Gate:
    """A soft gate over the whole bank, one weight for each of its rows; :meth:`kind_jax.Bundle.gate` takes classes.

    Raises:
      UserError: weights that are not numbers, not finite, or have another number of dimensions than two.
    """
    _check(weights, "weights of a gate", "fiu", 2, "numbers [samples or 1, groups]")
    weights = jnp.asarray(weights, jnp.float32)
    return Gate(jnp.broadcast_to(jnp.arange(weights.shape[1])[None, :], weights.shape), weights)


def check_gate(gate: object, samples: int, groups: int) -> None:
    """Refuse a gate that does not fit: a value of another type, length or shape, rows that the bank does not hold,
    weights that are not finite.

    Args:
      samples: images to be drawn.
      groups: rows of the bank.

    Raises:
      UserError: naming what does not fit.
    """
    if not isinstance(gate, Gate):
        raise UserError(f"gate is {gate!r:.100}, but it must be a Gate, as bundle.gate([3, 7]) gives.")
    index, weight = np.asarray(gate.index), np.asarray(gate.weight)
    _check(index, "index of the gate", "iu", 2, "rows [samples or 1, k]")
    _check(weight, "weight of the gate", "fiu", 2, "numbers [samples or 1, k]")
    if index.shape != weight.shape:
        raise UserError(f"weight of the gate has shape {weight.shape}, but its index has {index.shape}.")
    if index.shape[0] not in (1, samples):
        raise UserError(
            f"the gate is for {index.shape[0]} samples, but there are {samples} labels (or 1 gate for all)."
        )
    if np.any((index < 0) | (index >= groups)):
        raise UserError(f"the gate names rows beyond the {groups} groups that are aboard.")


def _check(values: Any, what: str, kinds: str, ndim: int, wanted: str) -> None:
    """Type, dimensions and finiteness; while JAX traces, of the first two alone."""
    if not isinstance(values, jax.Array):
        try:
            values = np.asarray(values)
        except ValueError as e:
            raise UserError(f"{what} are no array, but must be {wanted}.") from e
    number = values.dtype.kind in kinds or (values.dtype == jnp.bfloat16 and "f" in kinds)
    if not number or values.ndim != ndim:
        raise UserError(f"{what}: found {values.dtype.name} of shape {values.shape}, but wanted {wanted}.")
    if isinstance(values, Tracer):
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.asarray(values, np.float32))  # the dtype that it is used in
    if not finite.all():
        raise UserError(f"{what}: found values that are NaN or infinite, but they must be finite.")


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
