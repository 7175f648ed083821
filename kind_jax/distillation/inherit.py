"""A student that begins with its teacher's layers."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from kind_jax import partition
from kind_jax.config.check import refuse
from kind_jax.distillation.arms import layer_map
from kind_jax.nn.stack import DEPTH_AXIS
from kind_jax.partition import Collections


def layers(student: Collections, teacher: Collections) -> Collections:
    """The teacher's weights, of stacked blocks those in the places where the student's states are compared with theirs.

    Args:
      student: weights of the shapes that are wanted.

    Raises:
      UserError: a leaf of the student has another shape than that of its teacher, or the teacher has none like it.
    """
    problems: list[str] = []
    found: dict[str, Any] = {}
    for name, tree in student.items():
        theirs = partition.flatten(teacher.get(name, {}))
        leaves = {}
        for path, leaf in partition.flatten(tree).items():
            given = _rows(name, path, leaf, theirs.get(path))
            if given is None:
                shape = None if path not in theirs else list(theirs[path].shape)
                problems.append(
                    f"optima.init is 'teacher', but {name}/{path} is {list(leaf.shape)} in the student and {shape} in "
                    "the teacher: it must be 'random' for a student of another width."
                )
                break
            leaves[path] = given
        found[name] = partition.unflatten(leaves)
    refuse(problems[:1])
    return found


def _rows(name: str, path: str, leaf: Any, theirs: Any) -> np.ndarray | None:
    if theirs is None or re.search(r"blocks/\d+/", path):  # blocks of different forms have no common depth
        return None
    if theirs.shape == leaf.shape:
        return np.array(theirs)
    axis = DEPTH_AXIS.get(name, 0)
    if "blocks/" not in path or theirs.ndim != leaf.ndim or leaf.ndim <= axis or leaf.shape[axis] > theirs.shape[axis]:
        return None
    chosen = np.take(theirs, layer_map(leaf.shape[axis], theirs.shape[axis]), axis=axis)
    return chosen if chosen.shape == leaf.shape else None
