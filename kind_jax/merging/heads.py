"""Which features are within others: those of attention heads, experts or groups, each of which has its own order.

Features d are within heads H if wherever they are, H is too: no array has d without H, and no product sums over d but
for each head by itself, or over both at once. Then each head's features may have an order of their own. Products of a
shape's dimensions for which that does not hold keep their order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from kind_jax.merging.dims import Atom, Cat, Dim, atoms, factors, parts
from kind_jax.merging.follow import Followed


def heads_of(found: Followed) -> dict[int, int]:
    """The heads that features are within, by the ids of their atoms; gives an order to products that are nothing like
    that."""
    while True:
        before = free(found)
        for dims in found.axes:
            for part in (part for dim in dims for part in parts(dim)):
                _pin_what_is_no_pair(part)
        products = {(h.id, d.id) for dims in found.axes for dim in dims for h, d in _products(dim)}
        beside = {pair for dims in found.axes for pair in neighbours(dims)}
        good = _good(found, products | beside)
        for _, d in products - good:
            for atom in (a for dims in found.axes for dim in dims for a in atoms(dim) if a.id == d):
                atom.pinned = True
        if free(found) == before:
            return {d: h for h, d in good}


def free(found: Followed) -> set[int]:
    """Atoms of weights that may be in any order."""
    return {atom.id for dims in found.axes for dim in dims for atom in atoms(dim) if not atom.pinned}


def single(dim: Dim) -> Atom | None:
    """The free atom that a dimension is, if it is one."""
    found = [f for f in factors(dim) if f.size > 1]
    one = found[0] if len(found) == 1 and len(parts(dim)) == 1 else None
    return one if isinstance(one, Atom) and not one.pinned else None


def neighbours(dims: Sequence[Dim]) -> Iterator[tuple[int, int]]:
    """Free atoms of axes of a weight that stand one behind the other."""
    for a, b in itertools.pairwise(dims):
        one, other = single(a), single(b)
        if one is not None and other is not None and one is not other:
            yield one.id, other.id


def _products(dim: Dim) -> Iterator[tuple[Atom, Atom]]:
    for part in parts(dim):
        found = [f for f in factors(part) if isinstance(f, Atom) and not f.pinned]
        if len(found) == 2:
            yield found[0], found[1]


def _pin_what_is_no_pair(part: Dim) -> None:
    all_of_it = factors(part)
    found = [f for f in all_of_it if isinstance(f, Atom) and not f.pinned]
    for atom in found[2:]:
        atom.pinned = True
    if len(all_of_it) > 1:
        for atom in (a for f in all_of_it if isinstance(f, Cat) for a in atoms(f)):
            atom.pinned = True


def _good(found: Followed, pairs: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The pairs of heads and features for which what is said above holds."""
    arrays = [{atom.id for dim in dims for atom in atoms(dim)} for dims in found.dims.values()]
    sums = [({a.id for d in x for a in atoms(d)}, {a.id for d in y for a in atoms(d)}) for x, y in found.together]
    good = {
        (h, d)
        for h, d in pairs
        if h != d
        and not any(d in array and h not in array for array in arrays)
        and not any(d in summed and h not in summed | apart for summed, apart in sums)
        and all(_follows(dims, h, d) for dims in found.axes)
    }
    heads, inside = {h for h, _ in good}, [d for _, d in good]
    return {(h, d) for h, d in good if d not in heads and inside.count(d) == 1}


def _follows(dims: Sequence[Dim], h: int, d: int) -> bool:
    """Whether these features stand right behind their heads, wherever they are among a weight's axes."""
    behind = sum((h, d) == (one.id, other.id) for dim in dims for one, other in _products(dim))
    behind += sum(pair == (h, d) for pair in neighbours(dims))
    return behind == sum(atom.id == d for dim in dims for atom in atoms(dim))
