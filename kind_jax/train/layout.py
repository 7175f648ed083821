"""Where the samples of a class-grouped batch lie: in cohorts of one class, on devices that hold the tailors of theirs.

A class's tailors are large and its samples in a batch are few, so a step sends least from device to device where
samples go to their tailors. The groups of the bank are dealt to *shards*, one for each device along ``mesh.fsdp``, in
their order, each as many as any other or one fewer, and a device gets only samples of its own shard's groups. Rows of
the bank, their moments and averages then never leave their shard; gradients are summed over ``mesh.data`` alone.

Where the shards are not equally many, each is padded with rows that belong to no group and are never used. On disk the
bank is always in the order of its groups: a run may go on with another mesh, for whose shards it is dealt anew.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int64

from kind_jax.errors import UserError
from kind_jax.partition import TAILORS
from kind_jax.train.task import Controlled, Task


@dataclasses.dataclass(frozen=True)
class Deal:
    """Which rows of a bank each shard holds."""

    groups: int
    shards: int

    @property
    def each(self) -> int:
        """Rows of a shard."""
        return -(-self.groups // self.shards)

    @property
    def rows(self) -> int:
        return self.each * self.shards

    @property
    def even(self) -> bool:
        """Whether the rows are the groups, in their order."""
        return self.rows == self.groups

    @functools.cached_property
    def shard_of_group(self) -> Int64[np.ndarray, " groups"]:
        first = np.arange(self.shards + 1) * self.groups // self.shards
        return np.searchsorted(first, np.arange(self.groups), side="right") - 1

    @functools.cached_property
    def row_of_group(self) -> Int64[np.ndarray, " groups"]:
        shard = self.shard_of_group
        return shard * self.each + np.arange(self.groups) - shard * self.groups // self.shards

    @functools.cached_property
    def group_of_row(self) -> Int64[np.ndarray, " rows"]:
        """Beyond the groups where a row belongs to none: each such row has a number of its own."""
        found = self.groups + np.arange(self.rows)
        found[self.row_of_group] = np.arange(self.groups)
        return found


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the samples of a batch follow one another.

    A batch is ``replicas`` equal parts, each of ``shards`` equal pieces, and each of these is the batch of one device.

    Attributes:
      grouped: whether batches are class-grouped.
      cohort: samples in a row that share their class.
      shards: of the bank, whose groups the pieces have to themselves; 1 where any sample may be anywhere.
      replicas: devices that hold the same shard.
    """

    grouped: bool = False
    cohort: int = 1
    shards: int = 1
    replicas: int = 1


def layout_of(task: Task, mesh: Mesh | None = None) -> Layout:
    """The layout of a task's batches on a mesh, or on one device.

    Raises:
      UserError: ``data.per_class`` does not fit the batch, the model or the mesh.
    """
    config, m, batch = task.config, task.config.data.per_class, task.config.train.batch
    if m is None:
        return Layout()
    tailored = task.bank is not None and bool(jax.tree.leaves(task.shapes()[TAILORS]))
    if batch % m:
        raise UserError(f"data.per_class is {m}, but it must divide train.batch, which is {batch}.")
    ways, shards = 1, 1
    if mesh is not None:
        ways = mesh.shape["data"] * mesh.shape["fsdp"]
        shards = mesh.shape["fsdp"] if tailored else 1
    own = batch // ways
    if m % own and own % m:
        raise UserError(
            f"data.per_class is {m}, but one of it and the {own} samples that each device has of a batch (train.batch "
            f"{batch} over mesh.data x mesh.fsdp {ways}) must divide the other."
        )
    cohort = min(m, own)
    if cohort % config.train.accumulate:
        raise UserError(
            f"train.accumulate is {config.train.accumulate}, but it must divide the {cohort} samples of one class that "
            "lie together on a device (data.per_class): every micro-batch has its part of each."
        )
    if shards > 1:
        _check_shards(task, shards)
    return Layout(grouped=True, cohort=cohort, shards=shards, replicas=ways // shards)


def _check_shards(task: Task, shards: int) -> None:
    config, bank = task.config, task.bank
    assert bank is not None
    m, cohorts = config.data.per_class, config.train.batch // (config.data.per_class or 1)
    if bank.groups < shards:
        raise UserError(
            f"mesh.fsdp is {shards}, but it must be at most {bank.groups} with data.per_class: the model has "
            f"{bank.groups} groups of tailors, and every shard of them must have one."
        )
    if cohorts % shards:
        raise UserError(
            f"data.per_class is {m}, which puts {cohorts} classes into a batch, but they must be a multiple of "
            f"mesh.fsdp, which is {shards}: every shard of the tailors gets as many."
        )
    null: str = getattr(getattr(config, "model", None), "null_gate", "learngenes")
    if null in ("all", "mean"):
        raise UserError(
            f"model.null_gate is {null!r}, but it must be 'learngenes' or 'keep' with data.per_class on a mesh with "
            f"mesh.fsdp {shards}: the null class would read every device's tailors."
        )
    if not config.optimizer.lazy_tailors or config.optimizer.method == "sgd":
        raise UserError(
            "optimizer.lazy_tailors must be True and optimizer.method 'adamw' or 'muon' with data.per_class on a "
            f"mesh with mesh.fsdp {shards}."
        )
    if isinstance(task, Controlled):
        raise UserError(
            f"mesh.fsdp is {shards}, but it must be 1 with data.per_class where modules are distilled one by one."
        )


def shard_of_class(deal: Deal, group_of_class: Sequence[int]) -> tuple[int, ...]:
    """The shard that has each class's tailors."""
    return tuple(int(deal.shard_of_group[group]) for group in group_of_class)


def deal_of(task: Task, layout: Layout) -> Deal | None:
    """How the bank of a task is dealt; None where there is no bank."""
    return None if task.bank is None else Deal(task.bank.groups, layout.shards)


def described(layout: Layout, task: Task) -> list[str]:
    """What a person is told of a layout."""
    m = task.config.data.per_class
    if m is None:
        return []
    cohorts = task.config.train.batch // m
    lines = [f"class-grouped batches: {cohorts} cohorts of {m} images of one class"]
    deal: Any = deal_of(task, layout)
    if layout.shards > 1:
        least = deal.groups // deal.shards
        each = f"{least}" if deal.even else f"{least} or {least + 1}"
        lines.append(
            f"tailors: {deal.groups} groups on {deal.shards} shards, {each} each; a device gets samples of its own "
            f"shard's groups alone, {cohorts // deal.shards} cohorts a step for each shard"
        )
    return lines
