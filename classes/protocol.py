"""The rule that merges ImageNet's 1000 classes into 611 and splits these into base and novel: docs/classes.md."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from classes.wordnet import Nouns, ancestor
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merged:
    """A class of the protocol.

    Attributes:
      wnid: of the parent whose leaves it unites, or of the one leaf that it is.
      labels: of its leaves, ascending.
    """

    wnid: str
    labels: tuple[int, ...]


def merge(leaves: Sequence[str], nouns: Nouns, count: int) -> list[Merged]:
    """Merge leaves with the same first direct hypernym, groups with the deepest one first, until ``count`` are left.

    Args:
      leaves: wnids of the classes to be merged, in the order of their labels.
      nouns: WordNet.
      count: classes that shall remain.

    Returns:
      The classes, ordered by their lowest label.

    Raises:
      UserError: a leaf is not in WordNet, or no number of merges leaves exactly ``count``.
    """
    if unknown := [wnid for wnid in leaves if wnid not in nouns]:
        raise UserError(f"WordNet has no synset {unknown[0]}, but the labels must be those of WordNet 3.0.")
    groups: dict[str, list[int]] = defaultdict(list)
    for label, wnid in enumerate(leaves):
        groups[nouns[wnid].parent or wnid].append(label)
    order = sorted((p for p, own in groups.items() if len(own) > 1), key=lambda parent: (-nouns[parent].depth, parent))
    left, classes = len(leaves), []
    for parent in order:
        if left <= count:
            break
        left -= len(groups[parent]) - 1
        classes.append(Merged(wnid=parent, labels=tuple(groups[parent])))
    if left != count:
        raise UserError(f"merging leaves {left} classes, but it must leave {count}; this is another WordNet.")
    taken = {label for one in classes for label in one.labels}
    classes += [Merged(wnid=wnid, labels=(label,)) for label, wnid in enumerate(leaves) if label not in taken]
    return sorted(classes, key=lambda one: one.labels[0])


def strata(classes: Sequence[Merged], nouns: Nouns, depth: int) -> dict[str, list[int]]:
    """The numbers of the classes below each ancestor of ``depth``: ancestors by wnid, classes by theirs."""
    found: dict[str, list[int]] = defaultdict(list)
    for number in sorted(range(len(classes)), key=lambda n: classes[n].wnid):
        found[ancestor(classes[number].wnid, nouns, depth)].append(number)
    return dict(sorted(found.items()))


def allocate(sizes: Sequence[int], seats: int) -> list[int]:
    """Divide ``seats`` in proportion to ``sizes`` by largest remainders; of equal ones the earlier comes first."""
    total = sum(sizes)
    shares = [divmod(seats * size, total) for size in sizes]  # whole numbers: no remainder is a rounding error
    order = sorted(range(len(sizes)), key=lambda i: (-shares[i][1], i))
    extra = set(order[: seats - sum(whole for whole, _ in shares)])
    return [whole + (i in extra) for i, (whole, _) in enumerate(shares)]


def choose(parts: Sequence[Sequence[int]], seats: int, seed: int) -> set[int]:
    """``seats`` of all members, from each part in proportion to its size.

    Part after part, ``numpy.random.RandomState(seed)``, whose stream NumPy has frozen, draws one permutation of the
    part; its first entries are taken.
    """
    random = np.random.RandomState(seed)
    chosen: set[int] = set()
    for part, take in zip(parts, allocate([len(part) for part in parts], seats), strict=True):
        chosen.update(part[i] for i in random.permutation(len(part))[:take])
    return chosen
