"""A network as one flat list of operations, in which calls and loops are written out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """``function(weights, *inputs)``, written out.

    Attributes:
      flat: its operations.
      names: the path of each leaf of ``weights``, in the order in which ``flat`` takes them; inputs come behind.
    """

    flat: core.ClosedJaxpr
    names: tuple[str, ...]

    def values(self, wanted: Sequence[core.Var], weights: Any, *inputs: Any) -> list[jax.Array]:
        """The values that some of the variables have; a compiler leaves out what they do not need."""
        found: dict[Any, Any] = {}
        _evaluate(self.flat.jaxpr, self.flat.consts, jax.tree.leaves((weights, *inputs)), found)
        return [found[variable] for variable in wanted]


def program(function: Callable[..., Any], weights: Any, *inputs: Any) -> Program:
    """Trace a function of weights and inputs, given as arrays or ShapeDtypeStructs.

    Raises:
      UserError: weights that are stacked for a loop: each turn of it needs leaves of its own.
    """
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(weights)[0]]
    names = tuple("/".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path) for path in paths)
    nested = jax.make_jaxpr(function)(weights, *inputs)
    _check_loops(nested.jaxpr, set(nested.jaxpr.invars[: len(names)]))

    def unrolled(*leaves: jax.Array) -> list[jax.Array]:
        return _evaluate(nested.jaxpr, nested.consts, leaves)

    return Program(jax.make_jaxpr(unrolled)(*jax.tree.leaves((weights, *inputs))), names)


def inner(equation: Any) -> tuple[Any, Sequence[Any]] | None:
    """The operations and constants of a call, and None of anything else."""
    for name in ("jaxpr", "call_jaxpr"):
        found = equation.params.get(name)
        if isinstance(found, core.ClosedJaxpr):
            return found.jaxpr, found.consts
        if isinstance(found, core.Jaxpr):
            return found, ()
    return None


def _evaluate(
    jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any], values: dict[Any, Any] | None = None
) -> list[Any]:
    found: dict[Any, Any] = {} if values is None else values
    found.update(zip(jaxpr.constvars, consts, strict=True))
    found.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else found[atom]

    for equation in jaxpr.eqns:
        given = [read(atom) for atom in equation.invars]
        body = inner(equation)
        if body is None and equation.params.get("branches_platforms"):
            body = _branch(equation)
            given = given[1:]
        if body is None:
            made = equation.primitive.bind(*given, **equation.params)
            made = made if equation.primitive.multiple_results else [made]
        elif equation.primitive.name == "scan":
            made = _written_out(equation, body, given)
        else:
            made = _evaluate(*body, given)
        found.update(zip(equation.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _branch(equation: Any) -> tuple[Any, Sequence[Any]]:
    """What this machine's platform computes, where platforms differ."""
    platform = jax.default_backend()
    for branch, platforms in zip(equation.params["branches"], equation.params["branches_platforms"], strict=True):
        if platforms is None or platform in platforms:
            return branch.jaxpr, branch.consts
    raise UserError(f"the network has an operation that {platform} has no form of.")


def _written_out(equation: Any, body: tuple[Any, Sequence[Any]], given: Sequence[Any]) -> list[Any]:
    """The turns of a scan, one after the other."""
    length, fixed = equation.params["length"], equation.params["num_consts"]
    carried = equation.params["num_carry"]
    consts, carry, each = given[:fixed], list(given[fixed : fixed + carried]), given[fixed + carried :]
    turns = range(length)[::-1] if equation.params["reverse"] else range(length)
    outputs: dict[int, list[Any]] = {}
    for turn in turns:
        made = _evaluate(*body, [*consts, *carry, *(array[turn] for array in each)])
        carry, outputs[turn] = made[:carried], made[carried:]
    return [*carry, *(jnp.stack(rows) for rows in zip(*(outputs[turn] for turn in range(length)), strict=True))]


def _check_loops(jaxpr: Any, weights: set[Any]) -> None:
    """Refuse a scan over weights: what differs from turn to turn would have one name."""
    held = set(weights)
    for equation in jaxpr.eqns:
        given = [atom for atom in equation.invars if not isinstance(atom, core.Literal)]
        body = inner(equation)
        if equation.primitive.name == "scan" and equation.params["length"] > 1:
            first = equation.params["num_consts"] + equation.params["num_carry"]
            if any(atom in held for atom in equation.invars[first:] if not isinstance(atom, core.Literal)):
                raise UserError(
                    "the network's weights are stacked for a scan, but merging needs leaves of their own for each block."
                )
        elif body is not None:
            inside = {
                own
                for own, atom in zip(body[0].invars, equation.invars, strict=True)
                if not isinstance(atom, core.Literal) and atom in held
            }
            _check_loops(body[0], inside)
        if given and all(atom in held for atom in given):
            held.update(equation.outvars)
