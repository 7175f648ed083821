"""Follows the dimensions of weights through a program: which of them must be in one order, and where they are read.

Each operation makes dimensions equal (:mod:`kind_jax.merging.dims`). A weight's axis is *read* where it is summed
over against features, and *written* everywhere else: a kernel's columns, biases, the scales of norms, positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax.extend import core

from kind_jax.errors import UserError
from kind_jax.merging.dims import Dim, fresh, pin, unify
from kind_jax.merging.program import Program
from kind_jax.merging.rules import RULES, Origin, Value, constant, ordered


@dataclasses.dataclass(frozen=True)
class Read:
    """Features that are summed over: against a ``leaf``'s axis, or against other features (None)."""

    variable: core.Var
    dim: Dim
    leaf: int | None


@dataclasses.dataclass
class Followed:
    """What following a program has found.

    Attributes:
      axes: the dimension of each axis of each leaf.
      reads: in the order of the program.
      read: axes that features are multiplied with; ``inner``: those that weights sum over among themselves.
      normed: atoms that something is computed over, as a LayerNorm does.
      paired: atoms that features sum over against features, as queries with keys, or against a product of weights.
      together: what each product sums over and keeps apart, as dimensions, and those that it sums over alone.
      dims: of each variable.
      pooled: variables that are no more than a mean, a part or another shape of another one.
      clipped: variables that are another one within bounds, as behind a ReLU or a sigmoid.
    """

    axes: list[list[Dim]]
    reads: list[Read]
    read: set[Origin]
    inner: set[Origin]
    normed: list[Dim]
    paired: list[Dim]
    together: list[tuple[list[Dim], list[Dim]]]
    dims: dict[core.Var, list[Dim]]
    pooled: dict[core.Var, core.Var]
    clipped: dict[core.Var, core.Var]


def follow(program: Program) -> Followed:
    """Follow all dimensions of a program.

    Raises:
      UserError: an operation on weights or features that no rule is for, or a leaf that has no part in the outputs.
    """
    return _Follower(program).run()


class _Follower:
    def __init__(self, program: Program) -> None:
        self.program, jaxpr = program, program.flat.jaxpr
        self.values: dict[core.Var, Value] = {}
        self.found = Followed([], [], set(), set(), [], [], [], {}, {}, {})
        count = len(program.names)
        for i, variable in enumerate(jaxpr.invars):
            shape, weight = variable.aval.shape, i < count
            dims = [fresh(size, pinned=not weight) for size in shape]
            origins = [frozenset({(i, axis)}) if weight else frozenset() for axis in range(len(shape))]
            self.values[variable] = Value(dims, origins, weight, not weight)
            if weight:
                self.found.axes.append(dims)
        for variable, value in zip(jaxpr.constvars, program.flat.consts, strict=True):
            self.values[variable] = constant(value)

    def run(self) -> Followed:
        jaxpr, names = self.program.flat.jaxpr, self.program.names
        used = {atom for equation in jaxpr.eqns for atom in equation.invars if not isinstance(atom, core.Literal)}
        for name, variable in zip(names, jaxpr.invars, strict=False):
            if variable not in used and variable not in jaxpr.outvars:
                raise UserError(
                    f"the weight {name} has no part in the network's outputs, so no rule says how to merge it."
                )
        for equation in jaxpr.eqns:
            self._step(equation)
        for atom in jaxpr.outvars:
            for dim in self._of(atom).dims:
                pin(dim)
        self.found.dims = {variable: value.dims for variable, value in self.values.items()}
        return self.found

    def _of(self, atom: Any) -> Value:
        return constant(atom.val) if isinstance(atom, core.Literal) else self.values[atom]

    def _step(self, equation: Any) -> None:
        name, given = equation.primitive.name, [self._of(atom) for atom in equation.invars]
        rule = RULES.get(name)
        if rule is None:
            if any(value.weight or value.data for value in given):
                raise UserError(f"the network uses the operation {name!r}, which no rule of merging is for.")
            rule = ordered
        made = rule(self, equation, given)
        weight, data = any(v.weight for v in given), any(v.data for v in given)
        for variable, (dims, origins) in zip(equation.outvars, made, strict=True):
            if data:
                origins = [frozenset()] * len(dims)
            self.values[variable] = Value(dims, origins, weight, data)
        kind = self.found.pooled if name in _POOLING else self.found.clipped if name in _CLIPPING else None
        features = [atom for atom, value in zip(equation.invars, given, strict=True) if value.data]
        if kind is not None and len(features) == 1 and all(value.data or not value.dims for value in given):
            kind[equation.outvars[0]] = features[0]

    def norm_over(self, dim: Dim) -> None:
        """Note that something is computed over an axis."""
        self.found.normed.append(dim)

    def keep_together(self, summed: Sequence[Dim], apart: Sequence[Dim]) -> None:
        """Note what a product sums over at once, and what it does so for one by one."""
        self.found.together.append((list(summed), list(apart)))

    def sum_over(self, sides: Sequence[tuple[Any, Value, int]]) -> None:
        """Note that two operands are summed over against each other, along an axis of each."""
        (_, a, i), (_, b, j) = sides
        dim = unify(a.dims[i], b.dims[j])
        if a.data and b.data:
            self.found.paired.append(dim)
            for atom, value, axis in sides:
                self.found.reads.append(Read(atom, value.dims[axis], None))
        elif a.data or b.data:
            features, weights = (sides[0], sides[1]) if a.data else (sides[1], sides[0])
            origins = weights[1].origins[weights[2]]
            self.found.read.update(origins)
            leaf = min((origin[0] for origin in origins), default=None)
            if len({origin[0] for origin in origins}) > 1:  # the product of several, which no sum of theirs is
                self.found.paired.append(dim)
            if leaf is not None:
                self.found.reads.append(Read(features[0], dim, leaf))
            elif weights[1].weight:
                self.found.paired.append(dim)
            else:  # with a constant, whose order means something
                pin(dim)
        elif a.weight and b.weight:
            self.found.inner.update(a.origins[i] | b.origins[j])
        else:  # a constant stands in for features, as the state that a loop begins with
            self.found.read.update(a.origins[i] | b.origins[j])


_CLIPPING = {"max", "min", "clamp", "logistic", "tanh"}
_POOLING = frozenset(
    ("reduce_sum", "reduce_window_sum", "slice", "squeeze", "reshape", "transpose", "convert_element_type", "copy")
) | {"mul", "div"}
