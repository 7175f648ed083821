"""The order of a model's hidden units in which its weights agree best with another model's.

Weight matching (Ainsworth, Hayase & Srinivasa 2023, *Git Re-Basin*): the order of each node has the greatest sum of
products of the two models' weights, which is a linear assignment where the other nodes stand still. Of a transformer's
nodes only the conditioning vector's features and the hidden layer that makes them depend on each other; these are found
in turn. Heads are assigned by what their features gain when each pair's own are assigned best. Weights are means over
the classes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from kind_jax.merging.orders import CONDITION, TIME, Orders
from kind_jax.merging.sources import Source
from kind_jax.partition import flatten

_ROUNDS = 20  # of the two nodes that depend on each other; a handful is enough


def agree(reference: Source, other: Source) -> Orders:
    """Orders of ``other``'s nodes that suit ``reference``, for :func:`kind_jax.merging.orders.reordered`."""
    model = reference.bundle.config.model
    found: dict[str, Int[np.ndarray, " n"]] = _condition(reference, other)
    for block in range(model.depth):
        found[f"{block}/mlp"] = _assigned(
            _across(reference, other, f"{block}/mlp_in", 1) + _across(reference, other, f"{block}/mlp_out", 0)
        )
        q, k, v = _inputs(reference, other, block)
        found[f"{block}/qk"], found[f"{block}/vo"] = _heads(
            q + k, v + _across(reference, other, f"{block}/o", 0), model.heads
        )
    return found


def _assigned(gain: Float[np.ndarray, "n n"]) -> Int[np.ndarray, " n"]:
    """The unit of the other model for each of the reference's."""
    return linear_sum_assignment(gain, maximize=True)[1]


def _across(reference: Source, other: Source, name: str, axis: int) -> Float[np.ndarray, "n n"]:
    """Products of each pair of rows (axis 0), or of columns (1) with their biases, of one projection."""
    mine, theirs = reference.mean(name), other.mean(name)
    if axis == 0:
        return mine @ theirs.T
    return mine.T @ theirs + np.outer(reference.weights[name].bias, other.weights[name].bias)


def _inputs(reference: Source, other: Source, block: int) -> list[Float[np.ndarray, "D D"]]:
    """Products of the columns of q, of k and of v."""
    if f"{block}/q" in reference.weights:
        return [_across(reference, other, f"{block}/{part}", 1) for part in "qkv"]
    whole = _across(reference, other, f"{block}/qkv", 1)
    width = len(whole) // 3
    return [whole[i : i + width, i : i + width] for i in (0, width, 2 * width)]


def _heads(
    qk: Float[np.ndarray, "D D"], vo: Float[np.ndarray, "D D"], heads: int
) -> tuple[Int[np.ndarray, " D"], Int[np.ndarray, " D"]]:
    """Orders of all features: heads first, then those of each within it."""
    each = len(qk) // heads
    gain, inner = np.zeros((heads, heads)), {}
    for i in range(heads):
        for j in range(heads):
            at = slice(i * each, (i + 1) * each), slice(j * each, (j + 1) * each)
            for what, products in (("qk", qk), ("vo", vo)):
                order = inner[what, i, j] = _assigned(products[at])
                gain[i, j] += products[at][np.arange(each), order].sum()
    chosen = _assigned(gain)

    def ordered(what: str) -> Int[np.ndarray, " D"]:
        return np.concatenate([each * j + inner[what, i, j] for i, j in enumerate(chosen)])

    return ordered("qk"), ordered("vo")


def _condition(reference: Source, other: Source) -> dict[str, Int[np.ndarray, " n"]]:
    """The conditioning vector's features and the units before them, which is all that depends on each other."""
    mine, theirs = ({p: np.asarray(a, np.float64) for p, a in flatten(s.params).items()} for s in (reference, other))
    blocks = range(reference.bundle.config.model.depth)
    after = sum(
        (_across(reference, other, f"{block}/adaln", 0) for block in blocks),
        start=mine["final/adaln/kernel"] @ theirs["final/adaln/kernel"].T,
    )
    before = mine["time_embed/hidden/kernel"].T @ theirs["time_embed/hidden/kernel"] + np.outer(
        mine["time_embed/hidden/bias"], theirs["time_embed/hidden/bias"]
    )
    bias = np.outer(mine["time_embed/out/bias"], theirs["time_embed/out/bias"])
    ours, others = mine["time_embed/out/kernel"], theirs["time_embed/out/kernel"]
    time = np.arange(len(before))
    condition = np.arange(len(after))
    for _ in range(_ROUNDS):
        was = time, condition
        condition = _assigned(after + bias + ours.T @ others[time])
        time = _assigned(before + ours @ others[:, condition].T)
        if np.array_equal(was[0], time) and np.array_equal(was[1], condition):
            break
    return {CONDITION: condition, TIME: time}
