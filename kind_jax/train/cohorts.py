"""The rows of the tailor bank that the cohorts of a class-grouped batch need, found and laid side by side.

Where the bank is dealt to shards, a cohort needs a row of its own device's shard. Shards are a batch axis of every
look-up here, so that XLA's partitioner sees that no row leaves its device; what is summed over devices is the gradient
of rows that several of them have used.

Dimensions: B samples, G cohorts of a step, D replicas of F shards with g = G / (D F) cohorts on each, R rows of a shard
that are taken out of the bank.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kind_jax import partition
from kind_jax.nn.gate import Gate
from kind_jax.partition import TAILORS
from kind_jax.train import rows
from kind_jax.train.layout import Deal, Layout
from kind_jax.train.task import Bank


class Use(NamedTuple):
    """What a step uses of the bank.

    Attributes:
      gate: over what :func:`looked_up` gives.
      taken: rows of the bank, or of each shard of it, that the step takes out; None where it works on all.
      place: of each cohort, its row among these; None where samples look their rows up themselves.
      present: which of the rows that the step works on are switched on by some sample.
    """

    gate: Gate
    taken: Int[Array, "*shards R"] | None
    place: Int[Array, " G"] | Int[Array, "D F g"] | None
    present: Bool[Array, " rows"]


def by_cohort(gate: Gate, cohort: int) -> Gate:
    """A gate that names its rows once for ``cohort`` samples in a row.

    A sample whose own row is another than that of its cohort's first is trained as one of the null class: the input
    pipeline may have replaced a record that it could not read by one of another class.
    """
    if cohort == 1 or gate.index.shape[0] == 1:
        return gate
    first = gate.index[::cohort]
    same = jnp.all(gate.index == jnp.repeat(first, cohort, axis=0), axis=-1, keepdims=True)
    return Gate(first, jnp.where(same, gate.weight, 0))


def use_of(gate: Gate, bank: Bank, deal: Deal, layout: Layout) -> Use:
    """The rows that ``gate`` names, over the groups of the bank, found where they lie."""
    if layout.grouped and gate.index.shape[1] == 1:
        return _of_cohorts(gate, bank, deal, layout)
    if bank.taken is None:
        return Use(gate, None, None, _present(gate.index, gate.weight, bank.groups))
    taken = rows.in_use(gate.index, bank.taken, bank.groups)
    gate = Gate(rows.among(gate.index, taken), gate.weight)
    return Use(gate, taken, None, _present(gate.index, gate.weight, bank.taken))


def _of_cohorts(gate: Gate, bank: Bank, deal: Deal, layout: Layout) -> Use:
    cohorts, shards = gate.index.shape[0], layout.shards
    row = jnp.asarray(deal.row_of_group, jnp.int32)[gate.index[:, 0]]
    count, taken = (deal.each if bank.taken is None else bank.taken // shards), None
    if shards == 1:
        place, right = row, jnp.ones(cohorts, bool)
        if bank.taken is not None:
            taken = rows.in_use(row, count, deal.each)
            place = rows.among(row, taken)
            right = taken[place] == row
        at = place
    else:
        row = row.reshape(layout.replicas, shards, -1) - deal.each * jnp.arange(shards)[None, :, None]
        right = (row >= 0) & (row < deal.each)  # a record that replaces another may be another shard's
        place = row = jnp.clip(row, 0, deal.each - 1)
        if bank.taken is not None:
            taken = jax.vmap(lambda own: rows.in_use(own, count, deal.each), in_axes=1)(row)
            place = jax.vmap(rows.among, in_axes=(1, 0), out_axes=1)(row, taken)
            right &= jax.vmap(lambda own, at: own[at], in_axes=(0, 1), out_axes=1)(taken, place) == row
        at = (place + count * jnp.arange(shards)[None, :, None]).reshape(-1)
    kept = jnp.repeat(right.reshape(-1), gate.weight.shape[0] // cohorts)
    weight = jnp.where(kept[:, None], gate.weight, 0)
    lined_up = Gate(jnp.arange(cohorts, dtype=jnp.int32)[:, None], weight, aligned=True)
    return Use(lined_up, taken, place, _present(at[:, None], weight, count * shards))


def _present(index: Int[Array, "G k"], weight: Float[Array, "B k"], count: int) -> Bool[Array, " count"]:
    """Which of ``count`` rows some sample switches on."""
    samples = max(len(weight), len(index))
    on = jnp.broadcast_to(weight, (samples, index.shape[1])) != 0
    on = jnp.any(on.reshape(len(index), -1, index.shape[1]), axis=1)
    return jnp.zeros(count, bool).at[index.reshape(-1)].max(on.reshape(-1))


def looked_up(collections: partition.Collections, use: Use) -> partition.Collections:
    """Collections whose bank holds the row of each cohort, in their order; or the rows that are taken out."""
    return laid_out(collections if use.taken is None else rows.take_from(collections, use.taken), use)


def laid_out(collections: partition.Collections, use: Use) -> partition.Collections:
    """The same, of collections whose bank holds only the rows that the step works on."""
    place = use.place
    if place is None:
        return collections
    return {**collections, TAILORS: jax.tree.map(lambda leaf: _rows(leaf, place), collections[TAILORS])}


def _rows(bank: Float[Array, "rows ..."], place: Int[Array, " G"] | Int[Array, "D F g"]) -> Float[Array, "G ..."]:
    if place.ndim == 1:
        return bank[place]
    shards = place.shape[1]
    own = bank.reshape(shards, bank.shape[0] // shards, *bank.shape[1:])
    found = jax.vmap(lambda rows, at: rows[at], in_axes=(0, 1), out_axes=1)(own, place)
    return found.reshape(-1, *bank.shape[1:])


def summed(gradients: partition.Collections, use: Use) -> partition.Collections:
    """Gradients of the rows that the step works on, from those of what :func:`looked_up` gave."""
    place, count = use.place, use.present.shape[0]
    if place is None or TAILORS not in gradients:
        return gradients

    def of(leaf: Float[Array, "G ..."]) -> Float[Array, "rows ..."]:
        bank = jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype)
        return jax.linear_transpose(lambda rows: _rows(rows, place), bank)(leaf)[0]

    return {**gradients, TAILORS: jax.tree.map(of, gradients[TAILORS])}
