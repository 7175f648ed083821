"""Class tables: the KIND protocol on ImageNet-1K, 611 merged classes of which 150 are base and 461 novel.

The rule behind the table, what is known of the authors' own list, and the script that makes it: docs/classes.md.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int32

from kind_jax.errors import UserError
from kind_jax.untrusted import documents
from kind_jax.untrusted.text import check_names

Protocol = Literal["kind-611", "kind-base", "kind-novel"]

TABLE = Path(__file__).parent / "tables" / "imagenet_kind.json"
LABELS = 1000  # of ImageNet-1K: wnids in sorted order, as TFDS's imagenet2012, ImageFolder and DiT have them
SIZES: Mapping[str, int] = {"kind-611": 611, "kind-base": 150, "kind-novel": 461}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassTable:
    """Classes that are unions of the classes of another data set.

    Attributes:
      names: of the classes; unique.
      members: labels of the underlying data set that make up each class; a label is in one class at most.

    Raises:
      UserError: names and members do not fit, a name is there twice or does not print, a class is empty, or a label is
        negative or in two classes.
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        check_names(self.names, "the class table")
        if not self.names:
            raise UserError("the class table has no class, but it must have one or more.")
        if len(self.members) != len(self.names):
            raise UserError(f"the class table has {len(self.names)} names, but members of {len(self.members)} classes.")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise UserError(f"the class table has the name {twice!r} twice, but names must be unique.")
        taken: dict[int, str] = {}
        for name, own in zip(self.names, self.members, strict=True):
            if not own:
                raise UserError(f"the class {name!r} of the class table has no label, but it must have one or more.")
            for label in own:
                if label < 0 or label in taken:
                    found = f"in {taken[label]!r} and in {name!r}" if label in taken else f"in {name!r}"
                    raise UserError(f"the class table has label {label} {found}, but it must be from 0, and in one.")
                taken[label] = name

    def class_of(self, labels: int) -> Int32[np.ndarray, " labels"]:
        """The class of each label of a data set that has ``labels`` of them; -1 for those in no class.

        Raises:
          UserError: the table has a label that the data set does not have.
        """
        most = max(max(own) for own in self.members)
        if most >= labels:
            raise UserError(f"the data set has {labels} classes, but the class table needs {most + 1} or more.")
        found = np.full(labels, -1, np.int32)
        for number, own in enumerate(self.members):
            found[list(own)] = number
        return found


def load_protocol(name: Protocol) -> ClassTable:
    """The classes of a protocol over ImageNet's 1000 labels, ordered by their lowest label.

    Args:
      name: ``kind-611``, all merged classes; ``kind-base``, the 150 for pre-training; ``kind-novel``, the 461 others.

    Raises:
      UserError: there is no such protocol, or the table in this installation is damaged.
    """
    chosen = _chosen(name)
    return ClassTable(names=tuple(one["name"] for one in chosen), members=tuple(tuple(one["labels"]) for one in chosen))


def imagenet_names() -> tuple[str, ...]:
    """Readable, unique names of ImageNet's 1000 classes in the order of their labels: WordNet's first lemmas."""
    return tuple(name for _, name in _table()["imagenet"])


def imagenet_wnids() -> tuple[str, ...]:
    """WordNet ids like ``n01440764`` of ImageNet's 1000 classes in the order of their labels, which is sorted."""
    return tuple(wnid for wnid, _ in _table()["imagenet"])


def superclasses(name: Protocol, depth: int = 5) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Groups of classes under one WordNet ancestor, whose tailors they may share.

    Args:
      name: of the protocol.
      depth: of the ancestors: 5 has artifacts by kind but all of the animals in one group, larger ones divide these.

    Returns:
      The group of each class, for ``model.groups``, numbered by the first class that they have; and the groups' names.
    """
    synsets = _table()["synsets"]
    ancestors = [_ancestor(one["wnid"], synsets, depth) for one in _chosen(name)]
    order = {wnid: number for number, wnid in enumerate(dict.fromkeys(ancestors))}
    first = [synsets[wnid][0] for wnid in order]
    names = (f"{n} ({wnid})" if first.count(n) > 1 else n for n, wnid in zip(first, order, strict=True))
    return tuple(order[wnid] for wnid in ancestors), tuple(names)


def _ancestor(wnid: str, synsets: Mapping[str, Any], depth: int) -> str:
    _, here, parent = synsets[wnid]
    return wnid if here <= depth or parent is None else _ancestor(parent, synsets, depth)


def _chosen(name: str) -> list[dict[str, Any]]:
    if name not in SIZES:
        raise UserError(f"the class protocol is {name!r}, but it must be one of {', '.join(get_args(Protocol))}.")
    split = name.removeprefix("kind-")
    return [one for one in _table()["classes"] if split in ("611", one["split"])]


@functools.cache
def _table() -> dict[str, Any]:
    return read_table(TABLE)


def read_table(path: Path) -> dict[str, Any]:
    """The table at ``path``, as ``python -m classes.make`` wrote it.

    Raises:
      UserError: it is absent or damaged: its classes must be a partition of the labels 0 to 999 of the right sizes.
    """
    found = documents.read(path)
    try:
        wnids, names = zip(*found["imagenet"], strict=True)
        classes, synsets = found["classes"], found["synsets"]
        splits = [one["split"] for one in classes]
        labels = sorted(label for one in classes for label in one["labels"])
        shape = (len(classes), splits.count("base"), splits.count("novel"), len(names))
        above = {parent for _, _, parent in synsets.values() if parent is not None}
        lost = (above | {one[key] for one in classes for key in ("wnid", "ancestor")}) - set(synsets)
        ClassTable(names=tuple(names), members=tuple((label,) for label in range(len(names))))
        ClassTable(names=tuple(one["name"] for one in classes), members=tuple(tuple(one["labels"]) for one in classes))
    except UserError as e:
        raise UserError(f"{str(path)!r} is damaged, install kind-jax anew: {e}") from e
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise UserError(f"{str(path)!r} is damaged, install kind-jax anew: {type(e).__name__} {e}.") from e
    wanted = (*SIZES.values(), LABELS)
    if shape != wanted or labels != list(range(LABELS)) or list(wnids) != sorted(set(wnids)) or lost:
        raise UserError(
            f"{str(path)!r} is damaged, install kind-jax anew: it has {shape[0]} classes ({shape[1]} base, {shape[2]} "
            f"novel) and {shape[3]} names, but it must have {wanted[0]} ({wanted[1]}, {wanted[2]}) over the labels 0 "
            f"to {LABELS - 1}, with sorted wnids and every synset that is named."
        )
    return found
