"""A network as one flat list of operations, in which calls and loops are written out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """``function(weights, *inputs)``, written out.

    Attributes:
      flat: its operations.
      names: the path of each leaf of ``weights``, in the order in which ``flat`` takes them; inputs come behind. A leaf
        that a loop runs over, as over stacked blocks, is one leaf for each turn: ``blocks/mlp_in/kernel[3]``.
      stacked: where such leaves have their turns, by their paths.
    """

    flat: core.ClosedJaxpr
    names: tuple[str, ...]
    stacked: dict[str, int]

    def values(self, wanted: Sequence[core.Var], leaves: Mapping[str, Any], *inputs: Any) -> list[jax.Array]:
        """The values that some of the variables have, and nothing that they do not need."""
        jaxpr, needed, kept = self.flat.jaxpr, set(wanted), []
        for equation in reversed(jaxpr.eqns):
            if not needed.isdisjoint(equation.outvars):
                kept.append(equation)
                needed.update(atom for atom in equation.invars if isinstance(atom, core.Var))
        found = dict(zip(jaxpr.constvars, self.flat.consts, strict=True))
        arguments = [*(leaves.get(name) for name in self.names), *jax.tree.leaves(inputs)]
        found.update(zip(jaxpr.invars, arguments, strict=True))
        for equation in reversed(kept):
            _apply(equation, found)
        return [found[variable] for variable in wanted]

    def split(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """Leaves by path, those that loops run over as one for each turn."""
        found = {}
        for name, leaf in leaves.items():
            axis = self.stacked.get(name)
            if axis is None:
                found[name] = leaf
            else:
                take = np.take if isinstance(leaf, np.ndarray) else jnp.take
                found |= {f"{name}[{turn}]": take(leaf, turn, axis=axis) for turn in range(leaf.shape[axis])}
        return found

    def join(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of :meth:`split`, for as many turns as there are."""
        found: dict[str, Any] = {}
        turns: dict[str, dict[int, Any]] = {}
        for name, leaf in leaves.items():
            path, _, turn = name.removesuffix("]").rpartition("[")
            if path in self.stacked:
                turns.setdefault(path, {})[int(turn)] = leaf
            else:
                found[name] = leaf
        for path, each in turns.items():
            found[path] = np.stack([np.asarray(each[turn]) for turn in sorted(each)], axis=self.stacked[path])
        return found


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves of a tree of dictionaries by path."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path): leaf for path, leaf in paths}


def program(function: Callable[..., Any], weights: Any, *inputs: Any) -> Program:
    """Trace a function of weights and inputs, given as arrays or ShapeDtypeStructs."""
    leaves = named_leaves(weights)
    nested = jax.make_jaxpr(function)(weights, *inputs)
    turns = _looped(nested.jaxpr, {variable: _Seen(i) for i, variable in enumerate(nested.jaxpr.invars[: len(leaves)])})
    names, axes, stacked = list(leaves), [turns.get(i) for i in range(len(leaves))], {}
    arguments, split = [], []
    for name, leaf, axis in zip(names, leaves.values(), axes, strict=True):
        if axis is None:
            arguments.append(leaf)
            split.append(name)
            continue
        stacked[name] = axis
        shape = (*leaf.shape[:axis], *leaf.shape[axis + 1 :])
        arguments += [jax.ShapeDtypeStruct(shape, leaf.dtype)] * leaf.shape[axis]
        split += [f"{name}[{turn}]" for turn in range(leaf.shape[axis])]

    def unrolled(*given: jax.Array) -> list[Any]:
        rest, made = list(given), []
        for leaf, axis in zip(leaves.values(), axes, strict=True):
            if axis is None:
                made.append(rest.pop(0))
            else:
                made.append(_Pile([rest.pop(0) for _ in range(leaf.shape[axis])], axis))
        return [_whole(each) for each in _evaluate(nested.jaxpr, nested.consts, [*made, *rest])]

    flat = jax.make_jaxpr(unrolled)(*arguments, *jax.tree.leaves(inputs))
    return Program(flat, tuple(split), stacked)


@dataclasses.dataclass(frozen=True)
class _Pile:
    """Arrays that are to be stacked along an axis."""

    turns: list[Any]
    axis: int

    def transposed(self, permutation: Sequence[int]) -> _Pile:
        order = [axis - (axis > self.axis) for axis in permutation if axis != self.axis]
        return _Pile([jnp.transpose(turn, order) for turn in self.turns], list(permutation).index(self.axis))


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A leaf, its axes perhaps in another order: where each of them was."""

    leaf: int
    order: tuple[int, ...] | None = None


def _inner(equation: Any) -> tuple[Any, Sequence[Any]] | None:
    """The operations and constants of a call, and None of anything else."""
    for name in ("jaxpr", "call_jaxpr"):
        found = equation.params.get(name)
        if isinstance(found, core.ClosedJaxpr):
            return found.jaxpr, found.consts
        if isinstance(found, core.Jaxpr):
            return found, ()
    branches = equation.params.get("branches_platforms")
    return None if branches is None else _branch(equation, branches)


def _branch(equation: Any, branches: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """What this machine's platform computes, where platforms differ."""
    platform = jax.default_backend()
    for branch, platforms in zip(equation.params["branches"], branches, strict=True):
        if platforms is None or platform in platforms:
            return branch.jaxpr, branch.consts
    raise UserError(f"the network has an operation that {platform} has no form of.")


def _arguments(equation: Any) -> Sequence[Any]:
    """What a call gives to its operations: everything, but for the number of a branch."""
    return equation.invars[1:] if "branches_platforms" in equation.params else equation.invars


def _evaluate(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    found = dict(zip(jaxpr.constvars, consts, strict=True))
    found.update(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        _apply(equation, found)
    return [_read(atom, found) for atom in jaxpr.outvars]


def _read(atom: Any, found: dict[Any, Any]) -> Any:
    return atom.val if isinstance(atom, core.Literal) else found[atom]


def _apply(equation: Any, found: dict[Any, Any]) -> None:
    body, name = _inner(equation), equation.primitive.name
    if body is not None:
        given = [_read(atom, found) for atom in _arguments(equation)]
        made = _written_out(equation, body, given) if name == "scan" else _evaluate(*body, given)
    else:
        given = [_read(atom, found) for atom in equation.invars]
        if name == "transpose" and isinstance(given[0], _Pile):
            made = [given[0].transposed(equation.params["permutation"])]
        else:
            made = equation.primitive.bind(*map(_whole, given), **equation.params)
            made = made if equation.primitive.multiple_results else [made]
    found.update(zip(equation.outvars, made, strict=True))


def _whole(value: Any) -> Any:
    return jnp.stack(value.turns, axis=value.axis) if isinstance(value, _Pile) else value


def _written_out(equation: Any, body: tuple[Any, Sequence[Any]], given: Sequence[Any]) -> list[Any]:
    """The turns of a scan, one after the other."""
    length, fixed = equation.params["length"], equation.params["num_consts"]
    carried = equation.params["num_carry"]
    consts, carry, each = given[:fixed], list(given[fixed : fixed + carried]), given[fixed + carried :]
    outputs: dict[int, list[Any]] = {}
    for turn in range(length)[::-1] if equation.params["reverse"] else range(length):
        own = [array.turns[turn] if _first(array) else _whole(array)[turn] for array in each]
        made = _evaluate(*body, [*consts, *carry, *own])
        carry, outputs[turn] = made[:carried], made[carried:]
    return [*carry, *(jnp.stack(rows) for rows in zip(*(outputs[turn] for turn in range(length)), strict=True))]


def _first(array: Any) -> bool:
    return isinstance(array, _Pile) and array.axis == 0


def _looped(jaxpr: Any, seen: dict[Any, _Seen]) -> dict[int, int]:
    """The leaves that loops run over, and along which of their axes."""
    found: dict[int, int] = {}
    seen = dict(seen)
    for equation in jaxpr.eqns:
        body, name = _inner(equation), equation.primitive.name
        if name == "transpose" and equation.invars[0] in seen:
            before, order = seen[equation.invars[0]], equation.params["permutation"]
            old = before.order or tuple(range(len(order)))
            seen[equation.outvars[0]] = _Seen(before.leaf, tuple(old[axis] for axis in order))
        elif body is not None:
            given = _arguments(equation)
            outside = len(given)
            if name == "scan":
                outside = equation.params["num_consts"] + equation.params["num_carry"]
                for atom in given[outside:]:
                    if isinstance(atom, core.Var) and atom in seen:
                        found[seen[atom].leaf] = (seen[atom].order or (0,))[0]
            inside = {
                own: seen[atom]
                for own, atom in zip(body[0].invars[:outside], given[:outside], strict=True)
                if isinstance(atom, core.Var) and atom in seen
            }
            found |= _looped(body[0], inside)
    return found
