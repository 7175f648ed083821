"""WordNet's nouns as a graph, read from the file ``data.noun`` of its release (format: man page wndb(5))."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from kind_jax.errors import UserError

Nouns = Mapping[str, "Synset"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synset:
    """A set of synonyms.

    Attributes:
      wnid: ``n`` and the eight digits of its offset in ``data.noun``; in the same order as the offsets.
      name: its first lemma, with spaces.
      hypernyms: the wnids that its pointers ``@`` lead to, then those of ``@i`` (hypernyms of an instance), each in the
        order of the file.
      depth: length of the shortest way along hypernyms to a synset that has none, which for nouns is ``entity``.
    """

    wnid: str
    name: str
    hypernyms: tuple[str, ...]
    depth: int

    @property
    def parent(self) -> str | None:
        """The first direct hypernym; None for a root."""
        return self.hypernyms[0] if self.hypernyms else None


def read_nouns(folder: Path) -> dict[str, Synset]:
    """Every noun synset of the WordNet in ``folder`` by its wnid.

    Raises:
      UserError: there is no ``data.noun``, or it is not one.
    """
    path = folder / "data.noun"
    if not path.is_file():
        raise UserError(f"{str(path)!r} does not exist, but --wordnet must name WordNet 3.0's folder dict.")
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), 1):
        if line.startswith("  "):  # the licence
            continue
        try:
            wnid, name, hypernyms = _parse(line)
        except (IndexError, ValueError) as e:
            raise UserError(f"line {number} of {str(path)!r} is no synset, but the file must be WordNet's.") from e
        found[wnid] = (name, hypernyms)
    depths = _depths({wnid: hypernyms for wnid, (_, hypernyms) in found.items()}, path)
    return {
        wnid: Synset(wnid=wnid, name=name, hypernyms=hypernyms, depth=depths[wnid])
        for wnid, (name, hypernyms) in found.items()
    }


def _parse(line: str) -> tuple[str, str, tuple[str, ...]]:
    """wnid, name and hypernyms of a line: offset file type w_cnt (word id)... p_cnt (pointer offset pos pair)..."""
    fields = line.partition(" | ")[0].split()
    words, pointers = int(fields[3], 16), 4 + 2 * int(fields[3], 16)
    if words < 1:
        raise ValueError("a synset without a word")
    ways: dict[str, list[str]] = {"@": [], "@i": []}
    for start in range(pointers + 1, pointers + 1 + 4 * int(fields[pointers]), 4):
        symbol, offset, part = fields[start : start + 3]
        if symbol in ways and part == "n":
            ways[symbol].append(_wnid(offset))
    return _wnid(fields[0]), fields[4].replace("_", " "), (*ways["@"], *ways["@i"])


def _wnid(offset: str) -> str:
    if len(offset) != 8 or not offset.isdigit():
        raise ValueError(f"{offset!r} is no offset")
    return f"n{offset}"


def _depths(hypernyms: Mapping[str, tuple[str, ...]], path: Path) -> dict[str, int]:
    below: dict[str, list[str]] = {wnid: [] for wnid in hypernyms}
    for wnid, above in hypernyms.items():
        for one in above:
            if one not in below:
                raise UserError(f"{str(path)!r} has no synset {one}, which {wnid} points to; the file is not whole.")
            below[one].append(wnid)
    depths = {wnid: 0 for wnid, above in hypernyms.items() if not above}
    queue = deque(depths)
    while queue:
        for one in below[here := queue.popleft()]:
            if one not in depths:
                depths[one] = depths[here] + 1
                queue.append(one)
    if len(depths) < len(hypernyms):
        wnid = min(hypernyms.keys() - depths.keys())
        raise UserError(f"{str(path)!r} has no way from {wnid} to a root, but every noun must have one.")
    return depths


def lineage(wnid: str, nouns: Nouns) -> list[str]:
    """``wnid``, its first direct hypernym, and so on up to a root."""
    found = [wnid]
    while (parent := nouns[found[-1]].parent) is not None:
        found.append(parent)
    return found


def ancestor(wnid: str, nouns: Nouns, depth: int) -> str:
    """The first of its lineage that is at most ``depth`` deep.

    A step up lowers the depth by 1 at most, so a synset deeper than ``depth`` has an ancestor exactly there.
    """
    return next(one for one in lineage(wnid, nouns) if nouns[one].depth <= depth)


def unique_names(wnids: list[str], nouns: Nouns) -> list[str]:
    """First lemmas; one that several have is followed by the first hypernym's, and if that is no help by the wnid."""
    names = [nouns[wnid].name for wnid in wnids]
    for more in (lambda wnid: nouns[nouns[wnid].parent or wnid].name, lambda wnid: wnid):
        shared = {name for name in names if names.count(name) > 1}
        names = [
            f"{nouns[wnid].name} ({more(wnid)})" if name in shared else name
            for wnid, name in zip(wnids, names, strict=True)
        ]
    return names
