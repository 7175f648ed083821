"""Which weight is written by and read at which node: a table, derived from the network itself.

A *node* is a place whose n features may be put in any order without changing what the network computes, if the weights
that write them and those that read them follow. Nobody labels axes: :func:`table_of` follows the dimensions of all
weights through the traced network (:mod:`kind_jax.merging.follow`), whatever network it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kind_jax import partition
from kind_jax.merging.dims import Atom, Dim, atoms, factors, find, parts
from kind_jax.merging.follow import Followed, follow
from kind_jax.merging.heads import heads_of, single
from kind_jax.merging.program import Program, named_leaves, program

Role = Literal["written", "read", "inner"]


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of a weight's axis.

    Attributes:
      size: its length.
      nodes: the node whose features it has; two for the features of heads, and none for what has an order of its own.
      around: sizes before and behind the node's in a product of the kind (rows, columns, channels).
    """

    size: int
    nodes: tuple[int, ...] = ()
    around: tuple[int, int] = (1, 1)


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of a weight: what it has, and whether it writes features, reads them, or is summed over by weights."""

    parts: tuple[Part, ...]
    role: Role

    @property
    def nodes(self) -> set[int]:
        return {node for part in self.parts for node in part.nodes}


@dataclasses.dataclass(frozen=True)
class Node:
    """Features that have no order.

    Attributes:
      name: the first weight that writes them.
      size: how many there are.
      heads: where they are the features of attention heads: the node of the heads, which are permuted as blocks.
      inside: of such a node of heads: what is within its heads, as numbers of nodes.
      paired: whether they are summed over against other features, as queries with keys: nothing but permuting is right.
      normed: whether a norm computes something over them.
      written, read: how many weights do.
    """

    name: str
    size: int
    heads: int | None = None
    inside: tuple[int, ...] = ()
    paired: bool = False
    normed: bool = False
    written: tuple[str, ...] = ()
    read: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a node's features are to be seen: a variable of the program, and how to take them out of its axes.

    Attributes:
      index: of the variable, for :meth:`Table.features`.
      leaf: the weight that reads them; None for other features.
      unclipped: the same for what stands before a ReLU, where there is one.
    """

    index: int
    leaf: str | None
    unclipped: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Attributes:
    nodes: in the order of the program.
    axes: of each weight, by its path; heads and what is within them are one axis.
    places: of each node, where its features are summed over, in the order of the program.
    """

    nodes: tuple[Node, ...]
    axes: dict[str, tuple[Axis, ...]]
    places: tuple[tuple[Place, ...], ...]
    _program: Program
    _sources: tuple[tuple[Any, tuple[tuple[int, ...], ...]], ...]

    def split(self, weights: Any) -> dict[str, Any]:
        """The leaves of a tree of weights by path, those that a loop runs over as one for each turn."""
        return self._program.split(named_leaves(weights))

    def join(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of :meth:`split`, as nested dictionaries; of turns as many as there are."""
        return partition.unflatten(self._program.join(leaves))

    def features(
        self, wanted: Sequence[Sequence[int]], leaves: Mapping[str, Any], *inputs: Any
    ) -> list[list[Float[Array, "samples n"]]]:
        """Features at places, by their indices, of leaves that :meth:`split` has made, with a row for each sample,
        pixel or token; those of heads are head-major."""
        flat = [index for indices in wanted for index in indices]

        def one(*inputs: Any) -> list[Any]:
            alone = jax.tree.map(lambda array: array[None], inputs)
            values = self._program.values([self._sources[index][0] for index in flat], leaves, *alone)
            return [_taken(value, self._sources[index][1]) for index, value in zip(flat, values, strict=True)]

        taken = iter([rows.reshape(-1, rows.shape[-1]) for rows in jax.vmap(one)(*inputs)])
        return [[next(taken) for _ in indices] for indices in wanted]


def table_of(function: Callable[..., Any], weights: Any, *inputs: Any) -> Table:
    """The table of a network.

    Args:
      function: takes weights and inputs; whatever it returns keeps its order.
      weights: a tree of arrays or ShapeDtypeStructs.
      inputs: likewise, each with samples on its first axis, of which one is enough; they keep their order too.

    Raises:
      UserError: an operation that no rule is for, or a weight that has no part in the outputs.
    """
    alone = [jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), each) for each in inputs]
    traced = program(function, weights, *alone)
    found = follow(traced)
    return _Builder(traced, found, heads_of(found)).table()


class _Builder:
    def __init__(self, traced: Program, found: Followed, heads: dict[int, int]) -> None:
        self.traced, self.found, self.heads = traced, found, heads
        self.number: dict[int, int] = {}
        self.atoms: list[Atom] = []
        self.first: list[str] = []

    def table(self) -> Table:
        names, found = self.traced.names, self.found
        inner_axes, read_axes = found.inner, found.read
        order = self._order()
        for i, axis in order:
            for atom in atoms(found.axes[i][axis]):
                if not atom.pinned and atom.size > 1 and atom.id not in self.number and (i, axis) not in inner_axes:
                    self.number[atom.id] = len(self.atoms)
                    self.atoms.append(atom)
                    self.first.append(_short(names[i]))
        axes = {
            name: self._joined(
                found.axes[i],
                [
                    Axis(tuple(self._part(p) for p in parts(dim)), _role((i, axis), read_axes, inner_axes))
                    for axis, dim in enumerate(found.axes[i])
                ],
            )
            for i, name in enumerate(names)
        }
        sources, places = self._places()
        return Table(self._nodes(axes), axes, places, self.traced, sources)

    def _joined(self, dims: Sequence[Dim], axes: Sequence[Axis]) -> tuple[Axis, ...]:
        """Axes of a weight, where heads and what is within them stand one behind the other as one."""
        out: list[Axis] = []
        for i, axis in enumerate(axes):
            before, own = (None if i == 0 else single(dims[i - 1])), single(dims[i])
            if before and own and self.heads.get(own.id) == before.id and out[-1].role == axis.role:
                (head,), (inside,) = out.pop().parts, axis.parts
                axis = Axis((Part(head.size * inside.size, (*head.nodes, *inside.nodes)),), axis.role)
            out.append(axis)
        return tuple(out)

    def _order(self) -> list[tuple[int, int]]:
        """Axes of leaves in the order in which the program uses the leaves."""
        jaxpr = self.traced.flat.jaxpr
        where: dict[Any, int] = {}
        for position, equation in enumerate(jaxpr.eqns):
            for atom in equation.invars:
                if not hasattr(atom, "val"):
                    where.setdefault(atom, position)
        leaves = range(len(self.traced.names))
        ranked = sorted(leaves, key=lambda i: where.get(jaxpr.invars[i], 0))
        kernels = [i for i in ranked if len(self.found.axes[i]) > 1]
        return [(i, axis) for i in [*kernels, *ranked] for axis in range(len(self.found.axes[i]))]

    def _part(self, dim: Dim) -> Part:
        before = behind = 1
        nodes: list[int] = []
        for factor in factors(dim):
            number = self.number.get(factor.id) if isinstance(factor, Atom) else None
            if number is not None:
                nodes.append(number)
            elif nodes:
                behind *= factor.size
            else:
                before *= factor.size
        return Part(dim.size, tuple(nodes), (before, behind))

    def _nodes(self, axes: dict[str, tuple[Axis, ...]]) -> tuple[Node, ...]:
        inside: dict[int, set[int]] = {}
        for each in axes.values():
            for axis in each:
                for part in axis.parts:
                    if len(part.nodes) == 2:
                        inside.setdefault(part.nodes[0], set()).add(part.nodes[1])
        heads = {node: head for head, found in inside.items() for node in found}
        normed, paired = self._flagged(self.found.normed), self._flagged(self.found.paired)

        def users(number: int, role: Role) -> tuple[str, ...]:
            return tuple(name for name, each in axes.items() if any(a.role == role and number in a.nodes for a in each))

        return tuple(
            Node(
                self.first[i], atom.size, heads.get(i), tuple(sorted(inside.get(i, ()))), i in paired, i in normed,
                users(i, "written"), users(i, "read"),
            )
            for i, atom in enumerate(self.atoms)
        )  # fmt: skip

    def _flagged(self, dims: list[Dim]) -> set[int]:
        return {self.number[atom.id] for dim in dims for atom in atoms(dim) if atom.id in self.number}

    def _places(self) -> tuple[tuple[Any, ...], tuple[tuple[Place, ...], ...]]:
        sources: list[Any] = []
        places: list[list[Place]] = [[] for _ in self.atoms]
        seen: dict[tuple[Any, int], int] = {}
        open_at: dict[int, int] = {}
        for read in self.found.reads:
            leaf = None if read.leaf is None else self.traced.names[read.leaf]
            for atom in atoms(read.dim):
                number = self.number.get(atom.id)
                if number is None:
                    continue
                variable = self._source(read.variable, atom)
                key = (variable, number)
                if key not in seen:
                    recipe = self._recipe(variable, atom)
                    if recipe is None:
                        continue
                    seen[key] = len(sources)
                    sources.append((variable, recipe))
                    before = self._unclipped(variable)
                    if before is not None and self._recipe(before, atom) == recipe:
                        sources.append((before, recipe))
                        open_at[seen[key]] = len(sources) - 1
                places[number].append(Place(seen[key], leaf, open_at.get(seen[key])))
        return tuple(sources), tuple(tuple(each) for each in places)

    def _source(self, variable: Any, atom: Atom) -> Any:
        """Back through means over images and changes of shape to the features themselves."""
        while True:
            before = self.found.pooled.get(variable)
            if before is None or not any(a is atom for dim in self.found.dims[before] for a in atoms(dim)):
                return variable
            variable = before

    def _unclipped(self, variable: Any) -> Any | None:
        """What a variable was before a ReLU."""
        found = None
        while variable in self.found.clipped:
            variable = found = self.found.clipped[variable]
        return found

    def _recipe(self, variable: Any, atom: Atom) -> tuple[tuple[int, ...], ...] | None:
        """For each axis: (start, stop), the sizes of its factors, and which of them are features."""
        out = []
        for dim in self.found.dims[variable]:
            start, stop, chosen = 0, dim.size, find(dim)
            for part in parts(dim):
                if any(a is atom for a in atoms(part)):
                    chosen, stop = part, start + part.size
                    break
                start += part.size
            else:
                start = 0
            sizes = [factor.size for factor in factors(chosen)]
            marks = [self._mark(factor, atom) for factor in factors(chosen)]
            out.append((start, stop, len(sizes), *sizes, *marks))
        return tuple(out)

    def _mark(self, factor: Dim, atom: Atom) -> int:
        """2 for the wanted features, 1 for the heads that they are within, 0 for all else."""
        if factor is atom:
            return 2
        return int(isinstance(factor, Atom) and self.heads.get(atom.id) == factor.id)


def _short(name: str) -> str:
    """A weight's layer, like ``blocks/mlp_in[3]``, without its collection."""
    path, _, turn = name.removesuffix("]").partition("[")
    layer = path.rpartition("/")[0] or path
    collection, _, rest = layer.partition("/")
    layer = rest if collection in partition.COLLECTIONS and rest else layer
    return f"{layer}[{turn}]" if turn else layer


def _role(origin: tuple[int, int], read: set[tuple[int, int]], inner: set[tuple[int, int]]) -> Role:
    if origin in inner:
        return "inner"
    return "read" if origin in read else "written"


def _taken(value: jax.Array, recipe: tuple[tuple[int, ...], ...]) -> Float[Array, "samples n"]:
    """The features of a node, as a row for each sample."""
    shape: list[int] = []
    marks: list[int] = []
    for axis, (start, stop, count, *rest) in enumerate(recipe):
        value = jax.lax.slice_in_dim(value, start, stop, axis=axis)
        shape += rest[:count]
        marks += rest[count:]
    value = value.reshape(shape)
    features = sorted((i for i, mark in enumerate(marks) if mark), key=lambda i: marks[i])  # heads come first
    samples = [i for i, mark in enumerate(marks) if not mark]
    n = 1
    for i in features:
        n *= shape[i]
    return jnp.transpose(value, (*samples, *features)).reshape(-1, n)
