"""What each operation of a program does to dimensions: which become equal, and which lose their freedom."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from kind_jax.errors import UserError
from kind_jax.merging.dims import Atom, Cat, Dim, cut, find, fresh, pin, regroup, unify

Origin = tuple[int, int]
"""A leaf by its number, and one of its axes."""


@dataclasses.dataclass
class Value:
    """What is known of an array.

    Attributes:
      dims: one for each of its axes.
      origins: the axes of weights that each of its axes comes from; of features, none.
      weight: whether weights are in it; ``data``: whether inputs are.
    """

    dims: list[Dim]
    origins: list[frozenset[Origin]]
    weight: bool
    data: bool


@runtime_checkable
class Notes(Protocol):
    """What rules tell beside dimensions."""

    def norm_over(self, dim: Dim) -> None:
        """Something is computed over an axis."""

    def keep_together(self, summed: Sequence[Dim], apart: Sequence[Dim]) -> None:
        """A product sums over some dimensions at once, for each value of others."""

    def sum_over(self, sides: Sequence[tuple[Any, Value, int]]) -> None:
        """Two operands are summed over against each other, along an axis of each."""


Made = list[tuple[list[Dim], list[frozenset[Origin]]]]
Rule = Callable[[Notes, Any, list[Value]], Made]


def constant(value: Any) -> Value:
    """An array that the program holds: where it is the same all along an axis, the axis has no order of its own."""
    array = np.asarray(value)
    dims: list[Dim] = []
    for axis, size in enumerate(array.shape):
        same = bool((array == np.take(array, [0], axis)).all()) if size else True
        dims.append(fresh(size, pinned=not same))
    return Value(dims, [frozenset()] * array.ndim, False, False)


def _outputs(equation: Any) -> list[tuple[int, ...]]:
    return [variable.aval.shape for variable in equation.outvars]


def _elementwise(_: Notes, equation: Any, given: list[Value]) -> Made:
    shape = _outputs(equation)[0]
    full = [value for value in given if value.dims]
    dims, origins = [fresh(size) for size in shape], []
    for axis, size in enumerate(shape):  # one of size 1 is repeated
        same = [value.dims[axis] for value in full if value.dims[axis].size == size]
        dims[axis] = functools.reduce(unify, same) if same else dims[axis]
        origins.append(frozenset().union(*(value.origins[axis] for value in full)))
    return [(dims, origins)] * len(equation.outvars)


def ordered(_: Notes, equation: Any, given: list[Value]) -> Made:
    """What depends on the order of everything."""
    for value in given:
        for dim in value.dims:
            pin(dim)
    return [([fresh(n, True) for n in shape], [frozenset()] * len(shape)) for shape in _outputs(equation)]


def _along(_: Notes, equation: Any, given: list[Value]) -> Made:
    """What depends on the order of one axis."""
    axis = equation.params["axis"]
    pin(given[0].dims[axis])
    return [(given[0].dims, given[0].origins)]


def _broadcast(_: Notes, equation: Any, given: list[Value]) -> Made:
    (shape,), value = _outputs(equation), given[0]
    dims, origins = [fresh(size) for size in shape], [frozenset()] * len(shape)
    for axis, out in enumerate(equation.params["broadcast_dimensions"]):
        origins[out] = value.origins[axis]
        if equation.invars[0].aval.shape[axis] == shape[out]:
            dims[out] = value.dims[axis]
    return [(dims, origins)]


def _reshape(_: Notes, equation: Any, given: list[Value]) -> Made:
    (shape,), value = _outputs(equation), given[0]
    dims = regroup(value.dims, shape)
    # An axis keeps its origins where it is the same axis; in a product all of them are.
    before = np.cumprod([1, *equation.invars[0].aval.shape])
    after = np.cumprod([1, *shape])
    origins = []
    for axis in range(len(shape)):
        low, high = after[axis], after[axis + 1]
        sources = [
            value.origins[i]
            for i in range(len(value.dims))
            if before[i] < high and before[i + 1] > low and value.dims[i].size > 1
        ]
        origins.append(frozenset().union(*sources) if shape[axis] > 1 else frozenset())
    return [(dims, origins)]


def _squeeze(_: Notes, equation: Any, given: list[Value]) -> Made:
    kept = [i for i in range(len(given[0].dims)) if i not in equation.params["dimensions"]]
    return [([given[0].dims[i] for i in kept], [given[0].origins[i] for i in kept])]


def _expand(_: Notes, equation: Any, given: list[Value]) -> Made:
    (shape,), dims, origins = _outputs(equation), iter(given[0].dims), iter(given[0].origins)
    new = equation.params["dimensions"]
    return [
        (
            [fresh(1) if i in new else next(dims) for i in range(len(shape))],
            [frozenset() if i in new else next(origins) for i in range(len(shape))],
        )
    ]


def _transpose(_: Notes, equation: Any, given: list[Value]) -> Made:
    order = equation.params["permutation"]
    return [([given[0].dims[i] for i in order], [given[0].origins[i] for i in order])]


def _reduce(notes: Notes, equation: Any, given: list[Value]) -> Made:
    value, axes = given[0], equation.params["axes"]
    for axis in axes:
        notes.norm_over(value.dims[axis])
        if equation.primitive.name in ("argmax", "argmin"):
            pin(value.dims[axis])
    kept = [i for i in range(len(value.dims)) if i not in axes]
    return [([value.dims[i] for i in kept], [value.origins[i] for i in kept])] * len(equation.outvars)


def _window(_: Notes, equation: Any, given: list[Value]) -> Made:
    (shape,), value = _outputs(equation), given[0]
    dims = list(value.dims)
    for axis, size in enumerate(equation.params["window_dimensions"]):
        if size != 1 or shape[axis] != value.dims[axis].size:
            pin(dims[axis])
            dims[axis] = fresh(shape[axis], True)
    return [(dims, value.origins)]


def _slice(_: Notes, equation: Any, given: list[Value]) -> Made:
    value, dims = given[0], []
    starts, limits = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(starts)
    for dim, start, limit, stride in zip(value.dims, starts, limits, strides, strict=True):
        if (start, limit) == (0, dim.size) and stride == 1:
            dims.append(dim)
        elif stride != 1 or start == limit:
            pin(dim)
            dims.append(fresh(-(-(limit - start) // stride), True))
        else:
            dims.append(_between(dim, start, limit))
    return [(dims, value.origins)]


def _between(dim: Dim, start: int, limit: int) -> Dim:
    if limit - start == 1 and not isinstance(find(dim), Cat):
        pin(dim)  # one of many
        return fresh(1)
    if start:
        dim = cut(dim, start)[1]
    return cut(dim, limit - start)[0] if limit - start < dim.size else dim


def _split(_: Notes, equation: Any, given: list[Value]) -> Made:
    value, axis, made = given[0], equation.params["axis"], []
    rest = value.dims[axis]
    for size in map(int, equation.params["sizes"]):
        part, rest = cut(rest, size) if size < rest.size else (rest, rest)
        made.append(([*value.dims[:axis], part, *value.dims[axis + 1 :]], value.origins))
    return made


def _concatenate(_: Notes, equation: Any, given: list[Value]) -> Made:
    along = equation.params["dimension"]
    dims = list(given[0].dims)
    for value in given[1:]:
        dims = [d if axis == along else unify(d, e) for axis, (d, e) in enumerate(zip(dims, value.dims, strict=True))]
    parts = [value.dims[along] for value in given]
    # A part of size 1 has no atom, but its place among the others does.
    dims[along] = Cat([part if part.size != 1 else Atom(1, True) for part in parts])
    return [(dims, [frozenset().union(*(v.origins[axis] for v in given)) for axis in range(len(dims))])]


def _stack(_: Notes, equation: Any, given: list[Value]) -> Made:
    axis = equation.params["axis"]
    dims, origins = _common(given)
    return [([*dims[:axis], fresh(len(given), True), *dims[axis:]], [*origins[:axis], frozenset(), *origins[axis:]])]


def _common(given: list[Value]) -> tuple[list[Dim], list[frozenset[Origin]]]:
    """What arrays of one shape have in common."""
    dims = [functools.reduce(unify, each) for each in zip(*(value.dims for value in given), strict=True)]
    return dims, [frozenset().union(*each) for each in zip(*(value.origins for value in given), strict=True)]


def _pad(_: Notes, equation: Any, given: list[Value]) -> Made:
    (shape,), dims = _outputs(equation), []
    for dim, (low, high, between), size in zip(given[0].dims, equation.params["padding_config"], shape, strict=True):
        if (low, high, between) == (0, 0, 0):
            dims.append(dim)
        elif between or low < 0 or high < 0:
            pin(dim)
            dims.append(fresh(size, True))
        else:
            dims.append(Cat([Atom(int(low)), dim, Atom(int(high))]))
    return [(dims, given[0].origins)]


def _dot(notes: Notes, equation: Any, given: list[Value]) -> Made:
    (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
    a, b = given
    for i, j in zip(left_sum, right_sum, strict=True):
        notes.sum_over([(equation.invars[0], a, i), (equation.invars[1], b, j)])
    batch = [unify(a.dims[i], b.dims[j]) for i, j in zip(left_batch, right_batch, strict=True)]
    notes.keep_together([a.dims[i] for i in left_sum], batch)
    left = [i for i in range(len(a.dims)) if i not in (*left_sum, *left_batch)]
    right = [j for j in range(len(b.dims)) if j not in (*right_sum, *right_batch)]
    origins = [a.origins[i] | b.origins[j] for i, j in zip(left_batch, right_batch, strict=True)]
    origins += [a.origins[i] for i in left] + [b.origins[j] for j in right]
    return [([*batch, *(a.dims[i] for i in left), *(b.dims[j] for j in right)], origins)]


def _convolution(notes: Notes, equation: Any, given: list[Value]) -> Made:
    numbers, (shape,), (a, b) = equation.params["dimension_numbers"], _outputs(equation), given
    groups = equation.params["feature_group_count"]
    if equation.params["batch_group_count"] != 1:
        raise UserError("the network has a convolution in groups of samples, which no rule of merging is for.")
    features, fan_out, fan_in = numbers.lhs_spec[1], numbers.rhs_spec[0], numbers.rhs_spec[1]
    out = b.dims[fan_out]
    if groups == 1:
        notes.sum_over([(equation.invars[0], a, features), (equation.invars[1], b, fan_in)])
    elif groups == a.dims[features].size == out.size:  # each channel for itself
        out = unify(a.dims[features], out)
    else:
        for dim in (a.dims[features], out, b.dims[fan_in]):
            pin(dim)
    dims = [fresh(size, True) for size in shape]
    origins = [frozenset()] * len(shape)
    for axis in numbers.lhs_spec[2:]:
        pin(a.dims[axis])
    for axis in numbers.rhs_spec[2:]:
        pin(b.dims[axis])
    dims[numbers.out_spec[0]], dims[numbers.out_spec[1]] = a.dims[numbers.lhs_spec[0]], out
    origins[numbers.out_spec[1]] = b.origins[fan_out]
    return [(dims, origins)]


def _iota(_: Notes, equation: Any, given: list[Value]) -> Made:
    (shape,) = _outputs(equation)
    dims = [fresh(size, axis == equation.params["dimension"]) for axis, size in enumerate(shape)]
    return [(dims, [frozenset()] * len(shape))]


def _gather(_: Notes, equation: Any, given: list[Value]) -> Made:
    """Rows of a table: what is taken whole stays as it is."""
    numbers, sizes, (shape,) = equation.params["dimension_numbers"], equation.params["slice_sizes"], _outputs(equation)
    table, rows = given
    gone = {*numbers.collapsed_slice_dims, *getattr(numbers, "operand_batching_dims", ())}
    dims, origins = [fresh(size) for size in shape], [frozenset()] * len(shape)
    kept = [axis for axis in range(len(table.dims)) if axis not in gone]
    for axis in gone:
        pin(table.dims[axis])
    for out, axis in zip(numbers.offset_dims, kept, strict=True):
        origins[out] = table.origins[axis]
        if sizes[axis] == table.dims[axis].size:
            dims[out] = table.dims[axis]
        else:
            pin(table.dims[axis])
            dims[out] = fresh(shape[out], True)
    batch = [axis for axis in range(len(shape)) if axis not in numbers.offset_dims]
    for out, dim in zip(batch, rows.dims[:-1], strict=True):
        dims[out] = dim
    return [(dims, origins)]


def _dynamic_slice(_: Notes, equation: Any, given: list[Value]) -> Made:
    dims = []
    for dim, size in zip(given[0].dims, equation.params["slice_sizes"], strict=True):
        if size != dim.size:
            pin(dim)
        dims.append(dim if size == dim.size else fresh(size, True))
    return [(dims, given[0].origins)]


_ELEMENTWISE = """
    abs add add_any and atan2 cbrt ceil clamp convert_element_type copy copy_p cos cosh div eq erf erf_inv erfc exp exp2
    expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg nextafter not or pow
    reduce_precision rem round rsqrt select_n sharding_constraint shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""
_REDUCTIONS = "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin"
_WINDOWS = "reduce_window_sum reduce_window_max reduce_window_min"
RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_REDUCTIONS.split(), _reduce),
    **dict.fromkeys(_WINDOWS.split(), _window),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _along),
    "broadcast_in_dim": _broadcast, "concatenate": _concatenate, "conv_general_dilated": _convolution,
    "dot_general": _dot, "dynamic_slice": _dynamic_slice, "expand_dims": _expand, "gather": _gather, "iota": _iota,
    "pad": _pad, "reshape": _reshape, "slice": _slice, "split": _split, "squeeze": _squeeze, "stack": _stack,
    "transpose": _transpose,
}  # fmt: skip
