"""What the rows of the tailor bank cost that a step uses."""

from __future__ import annotations

import dataclasses

import jax

from kind_jax.partition import TAILORS
from kind_jax.train.layout import Layout, deal_of
from kind_jax.train.task import Task


@dataclasses.dataclass(frozen=True)
class RowsInUse:
    """Of one device, in one step.

    Attributes:
      count: rows that it works on: those taken out of the bank, or all that it holds.
      copies: rows that samples or cohorts of its batch look up.
      bytes: of all of these: of what is taken out weights, gradients, moments and averages, else gradients alone; of
        copies values and gradients.
    """

    count: int
    copies: int
    bytes: int


def rows_in_use(task: Task, layout: Layout, devices: int = 1) -> RowsInUse | None:
    """None for a model without tailors. ``devices``: among which the batch is split."""
    bank, deal = task.bank, deal_of(task, layout)
    leaves = jax.tree.leaves(task.shapes().get(TAILORS, {}))
    if bank is None or deal is None or not leaves:
        return None
    row = sum(leaf.size // leaf.shape[0] * leaf.dtype.itemsize for leaf in leaves)
    count = deal.each if bank.taken is None else bank.taken // layout.shards
    kept = 1 if bank.taken is None else 4 + (task.config.train.ema is not None)
    own = task.config.train.batch // task.config.train.accumulate // devices
    copies = max(task.config.train.batch // devices // layout.cohort, 1) if layout.grouped else own
    return RowsInUse(count=count, copies=copies, bytes=row * (kept * count + 2 * copies))
