"""The modules of a student: which leaves are whose, and which states meet which of the teacher's.

Dimensions: L blocks, B samples, T tokens, F features of a state; s of the student, t of the teacher.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from kind_jax import partition
from kind_jax.config.check import refuse
from kind_jax.distillation.optima_config import ArmConfig
from kind_jax.losses import feature
from kind_jax.nn.stack import DEPTH_AXIS
from kind_jax.partition import Collections

States = Mapping[str, Float[Array, "..."]]
Valid = Mapping[str, Bool[Array, "B _"]]


_STACK = "blocks/"  # in the path of a leaf that has the depth of a stack


class Arm(NamedTuple):
    """A module that fits a student and its teacher.

    Attributes:
      states: name of its states.
      student, teacher: blocks that meet, in order; counted from 0.
      widths: features of its states, and of the teacher's.
    """

    name: str
    states: str
    student: tuple[int, ...]
    teacher: tuple[int, ...]
    widths: tuple[int, int]


def layer_map(student: int, teacher: int) -> tuple[int, ...]:
    """The teacher's layer for each of the student's, counted from 0: of layer l in 1..s it is ceil(l t / s), so that
    the last meets the last (TED, Liang et al. 2023, where s divides t)."""
    return tuple(-(-(layer + 1) * teacher // student) - 1 for layer in range(student))


def fitted(arms: Sequence[ArmConfig], shapes: Collections, mine: Any, theirs: Any) -> tuple[Arm, ...]:
    """The arms of a student whose states have the shapes ``mine``, beside a teacher with ``theirs``.

    Args:
      shapes: of the student's leaves.

    Raises:
      UserError: an arm has no leaves, shares some with another, or names states or blocks that there are not; or the
        student is deeper than its teacher.
    """
    problems: list[str] = []
    paths, found = _paths(shapes), []
    for arm in arms:
        if not any(re.fullmatch(arm.leaves, path) for path in paths):
            problems.append(f"optima.arms has {arm.name!r} with the leaves {arm.leaves!r}, which match no leaf.")
        if arm.states not in mine or arm.states not in theirs:
            known = ", ".join(mine)
            problems.append(f"optima.arms has {arm.name!r} with the states {arm.states!r}, but there are {known}.")
            continue
        depth, deeper = mine[arm.states].shape[0], theirs[arm.states].shape[0]
        if depth > deeper:
            problems.append(
                f"the student has {depth} blocks with the states {arm.states!r}, but it must have at most as many as "
                f"its teacher, {deeper}."
            )
            continue
        first, end = arm.blocks or (0, depth)
        if end > depth:
            problems.append(f"optima.arms has {arm.name!r} with the blocks {arm.blocks}, but there are {depth}.")
            continue
        if mine[arm.states].shape[1:3] != theirs[arm.states].shape[1:3]:
            problems.append(
                f"the student's states {arm.states!r} have {mine[arm.states].shape[2]} tokens, but the teacher's "
                f"{theirs[arm.states].shape[2]}: they must be as many."
            )
        own = range(first, end)
        widths = mine[arm.states].shape[-1], theirs[arm.states].shape[-1]
        mapped = layer_map(depth, deeper)
        found.append(Arm(arm.name, arm.states, tuple(own), tuple(mapped[i] for i in own), widths))
    if (clash := _clash(arms, paths)) is not None:
        problems.append(clash)
    refuse(problems)
    return tuple(found)


def _clash(arms: Sequence[ArmConfig], paths: Sequence[str]) -> str | None:
    """A sentence about the first leaf that two arms own, in the same blocks; None without any."""
    for path in paths:
        own = [arm for arm in arms if re.fullmatch(arm.leaves, path)]
        for a, b in itertools.combinations(own, 2):
            apart = (
                _STACK in path and a.blocks and b.blocks and (a.blocks[1] <= b.blocks[0] or b.blocks[1] <= a.blocks[0])
            )
            if not apart:
                return f"optima.arms has {path!r} in {a.name} and {b.name}, but a leaf is in one module at most."
    return None


def _block(path: str) -> int | None:
    """The block that a leaf is of, where blocks of different forms are not stacked."""
    found = re.search(rf"{_STACK}(\d+)/", path)
    return None if found is None else int(found.group(1))


def _paths(shapes: Collections) -> list[str]:
    return [
        f"{name}/{path}" for name, tree in shapes.items() if name in partition.COLLECTIONS
        for path in partition.flatten(tree)
    ]  # fmt: skip


def loss(
    arm: Arm, projector: Mapping[str, Array] | None, mine: States, theirs: States, valid: Valid
) -> Float[Array, ""]:
    """Mean squared difference of a module's states and the teacher's, over blocks, valid tokens and features.

    Args:
      projector: ``kernel`` [L, Fs, Ft] and ``bias`` [L, Ft] of the map that the student's states go through; None:
        nothing.
      valid: which tokens count, by the name of the states; those of others all do.
    """
    ours = mine[arm.states][np.asarray(arm.student)].astype(jnp.float32)
    wanted = theirs[arm.states][np.asarray(arm.teacher)]
    if projector is not None:
        ours = jnp.einsum("lbtf,lfg->lbtg", ours, projector["kernel"]) + projector["bias"][:, None, None, :]
    mask = valid.get(arm.states)
    if mask is not None:
        mask = jnp.broadcast_to(mask[None], ours.shape[:-1])
    return feature(ours, wanted, mask)


def only(arms: Sequence[ArmConfig], chosen: Float[Array, " K"], weights: Collections) -> Collections:
    """``weights`` of which only the leaves of chosen arms are differentiated.

    Args:
      chosen: for each arm, whether it is chosen; not 0 where it is.
    """
    found: dict[str, Any] = {}
    for collection, tree in weights.items():
        leaves: dict[str, Any] = {}
        for path, leaf in partition.flatten(tree).items():
            own = [i for i, arm in enumerate(arms) if re.fullmatch(arm.leaves, f"{collection}/{path}")]
            stopped = jax.lax.stop_gradient(leaf)
            for i in own:
                on, span = chosen[i] != 0, arms[i].blocks
                if span is not None and (number := _block(path)) is not None:
                    on = on & (span[0] <= number < span[1])
                elif span is not None and _STACK in path:
                    axis = DEPTH_AXIS[collection]
                    rows = np.arange(leaf.shape[axis])
                    inside = (rows >= span[0]) & (rows < span[1])
                    on = on & inside.reshape((-1,) + (1,) * (leaf.ndim - axis - 1))
                    on = jnp.broadcast_to(on, leaf.shape)
                stopped = jnp.where(on, leaf, stopped)
            leaves[path] = stopped
        found[collection] = partition.unflatten(leaves)
    return found
