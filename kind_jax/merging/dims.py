"""What the dimensions of a network's arrays are made of, found by making equal what a program makes equal.

A dimension is an *atom*, several of them one behind the other (:class:`Cat`, as q, k and v in a fused projection), or a
product of them (:class:`Mul`, as heads and their features, the slowest first). Whatever is added or multiplied has
equal dimensions, which is unification as in type inference. A *pinned* atom has an order of its own, like pixels and
classes: nothing may permute it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

_ids = itertools.count()


class Atom:
    """So many features of one kind, in an order that may be arbitrary."""

    def __init__(self, size: int, pinned: bool = False) -> None:
        self.size, self.pinned = int(size), pinned
        self.id = next(_ids)
        self.bound: Dim | None = None


class Cat:
    """Parts one behind the other."""

    def __init__(self, parts: Sequence[Dim]) -> None:
        self.parts = tuple(parts)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


class Mul:
    """A product, the slowest factor first; without factors it is of size 1."""

    def __init__(self, factors: Sequence[Dim]) -> None:
        self.factors = tuple(factors)

    @property
    def size(self) -> int:
        return math.prod(factor.size for factor in self.factors)


Dim = Atom | Cat | Mul
ONE = Mul(())


def fresh(size: int, pinned: bool = False) -> Dim:
    """A dimension of which nothing is known."""
    return ONE if size == 1 else Atom(size, pinned)


def find(dim: Dim) -> Dim:
    """What a dimension is by now, without parts in parts or factors in factors."""
    if isinstance(dim, Atom):
        return dim if dim.bound is None else find(dim.bound)
    if isinstance(dim, Cat):
        parts = [p for part in dim.parts for p in _inside(find(part), Cat) if p.size]
        return parts[0] if len(parts) == 1 else Cat(parts)
    factors = [f for factor in dim.factors for f in _inside(find(factor), Mul) if f.size != 1]
    return factors[0] if len(factors) == 1 else Mul(factors)


def atoms(dim: Dim) -> Iterator[Atom]:
    """The atoms that a dimension is made of."""
    dim = find(dim)
    if isinstance(dim, Atom):
        yield dim
    else:
        for each in dim.parts if isinstance(dim, Cat) else dim.factors:
            yield from atoms(each)


def pin(dim: Dim) -> None:
    """Give the order of a dimension a meaning."""
    for atom in atoms(dim):
        atom.pinned = True


def pinned(dim: Dim) -> bool:
    """Whether nothing in it may be permuted."""
    return all(atom.pinned for atom in atoms(dim))


def factors(dim: Dim) -> tuple[Dim, ...]:
    """The factors of a product, the slowest first; of anything else, itself."""
    return _inside(find(dim), Mul)


def parts(dim: Dim) -> tuple[Dim, ...]:
    """The parts that stand one behind the other; of anything else, itself."""
    return _inside(find(dim), Cat)


def unify(a: Dim, b: Dim) -> Dim:
    """Make two dimensions of one size equal. What cannot be made equal otherwise is pinned, which is always right."""
    a, b = find(a), find(b)
    if a is b:
        return a
    if pinned(a) or pinned(b):
        pin(a)
        pin(b)
        if not isinstance(a, Atom) and not isinstance(b, Atom):
            return a
    if isinstance(a, Atom) or isinstance(b, Atom):
        atom, other = (a, b) if isinstance(a, Atom) else (b, a)
        assert isinstance(atom, Atom)
        if any(
            each is atom for each in atoms(other)
        ):  # a dimension within itself: only an order that stays can be that
            pin(other)
            return other
        if atom.pinned:
            pin(other)
        atom.bound = other
        return other
    if isinstance(a, Cat) and isinstance(b, Cat):
        return _piecewise(a, b)
    if isinstance(a, Mul) and isinstance(b, Mul):
        return _by_factors(a, b)
    cat, mul = (a, b) if isinstance(a, Cat) else (b, a)
    assert isinstance(cat, Cat)
    assert isinstance(mul, Mul)
    # Equal parts one behind the other are a product too: then all of them are in one order.
    head, *rest = mul.factors
    inner = Mul(rest)
    if all(part.size == inner.size for part in cat.parts):
        pin(head)
        for part in cat.parts:
            unify(part, inner)
    else:
        pin(cat)
        pin(mul)
    return mul


def _piecewise(a: Cat, b: Cat) -> Dim:
    return Cat(_side_by_side(a.parts, b.parts, cut))


def _by_factors(a: Mul, b: Mul) -> Dim:
    products = [{math.prod(f.size for f in each.factors[:i]) for i in range(len(each.factors))} for each in (a, b)]
    ends = sorted(products[0] | products[1])
    if any(y % x for x, y in itertools.pairwise(ends)):  # no factors that both have
        pin(a)
        pin(b)
        return a
    return Mul(_side_by_side(a.factors, b.factors, divide))


def _side_by_side(a: Sequence[Dim], b: Sequence[Dim], split: Callable[[Dim, int], tuple[Dim, Dim]]) -> list[Dim]:
    """Pieces of two dimensions made equal one by one, the larger one of two always split to fit."""
    left, right, out = list(a), list(b), []
    while left and right:
        x, y = find(left.pop(0)), find(right.pop(0))
        if x.size > y.size:
            x, rest = split(x, y.size)
            left.insert(0, rest)
        elif y.size > x.size:
            y, rest = split(y, x.size)
            right.insert(0, rest)
        out.append(unify(x, y))
    return out


def cut(dim: Dim, at: int) -> tuple[Dim, Dim]:
    """The first ``at`` of a dimension, and the rest."""
    dim = find(dim)
    if isinstance(dim, Atom):
        dim.bound = Cat([Atom(at, dim.pinned), Atom(dim.size - at, dim.pinned)])
        return dim.bound.parts[0], dim.bound.parts[1]
    if isinstance(dim, Cat):
        before: list[Dim] = []
        for i, part in enumerate(dim.parts):
            if at < part.size:
                left, right = cut(part, at) if at else (None, part)
                return Cat([*before, *([left] if left else [])]), Cat([right, *dim.parts[i + 1 :]])
            before.append(part)
            at -= part.size
        raise ValueError(f"a dimension of {dim.size} is not to be cut at its end")
    first, *rest = dim.factors
    inner = Mul(rest)
    if at % inner.size == 0:
        left, right = cut(first, at // inner.size)
        return Mul([left, inner]), Mul([right, inner])
    pin(dim)
    return Atom(at, True), Atom(dim.size - at, True)


def divide(dim: Dim, slowest: int) -> tuple[Dim, Dim]:
    """A dimension as a product of two, the slower one of that size."""
    dim = find(dim)
    if isinstance(dim, Atom):
        dim.bound = Mul([Atom(slowest, dim.pinned), Atom(dim.size // slowest, dim.pinned)])
        return dim.bound.factors[0], dim.bound.factors[1]
    if isinstance(dim, Cat):
        each = dim.size // slowest
        if all(part.size == each for part in dim.parts):
            one = dim.parts[0]
            for part in dim.parts[1:]:
                one = unify(one, part)
            return Atom(slowest, True), one
        pin(dim)
        return Atom(slowest, True), Atom(each, True)
    found = regroup(dim.factors, (slowest, dim.size // slowest))
    return found[0], found[1]


def regroup(dims: Sequence[Dim], sizes: Sequence[int]) -> list[Dim]:
    """The dimensions of an array in another shape of as many elements."""
    if 0 in sizes:
        return _pinned_all(dims, sizes)
    left = [f for dim in dims for f in factors(dim) if f.size != 1]
    out: list[Dim] = []
    for size in sizes:
        taken: list[Dim] = []
        have = 1
        while have < size:
            factor = find(left.pop(0))
            wanted = size // have
            if factor.size <= wanted:
                if wanted % factor.size:
                    return _pinned_all([*taken, factor, *left, *out, *dims], sizes)
                taken.append(factor)
                have *= factor.size
            elif factor.size % wanted:
                return _pinned_all([*taken, factor, *left, *out, *dims], sizes)
            else:
                slow, fast = divide(factor, wanted)
                taken.append(slow)
                left.insert(0, fast)
                have = size
        out.append(Mul(taken) if len(taken) != 1 else taken[0])
    return out


def _pinned_all(dims: Sequence[Dim], sizes: Sequence[int]) -> list[Dim]:
    for dim in dims:
        pin(dim)
    return [fresh(size, True) for size in sizes]


def _inside(dim: Dim, kind: type) -> tuple[Dim, ...]:
    if kind is Cat:
        return dim.parts if isinstance(dim, Cat) else (dim,)
    return dim.factors if isinstance(dim, Mul) else (dim,)
