"""Results on disk: one JSON file a measure, written as soon as it is finished, and one table of all of them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import Found, Ratio

from kind_jax.errors import UserError
from kind_jax.files import atomic_write_text

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How thoroughly to measure.

    Attributes:
      rounds: rounds of a race.
      quick: tiny sizes, to see that everything works; the figures mean nothing.
      full: every point of the layer's grid instead of six.
    """

    rounds: int = 25
    quick: bool = False
    full: bool = False


def circumstances(settings: Settings) -> dict[str, Any]:
    """Everything that a figure depends on; a kept result must agree in all of it."""
    source = hashlib.sha256()
    for folder in ("kind_jax", "benchmarks"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            source.update(file.read_bytes())
    return {
        "settings": dataclasses.asdict(settings),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "source": source.hexdigest(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure(
    name: str, compute: Callable[[], Found], folder: Path, given: dict[str, Any], *, again: bool
) -> dict[str, Any]:
    """The record of one measure: the one on disk if it was made under the ``given`` circumstances, or a new one.

    Args:
      again: measure even so.

    Raises:
      UserError: the file on disk is damaged.
    """
    path = folder / f"{name}.json"
    old = None if again else read(path)
    if old is not None and old["rows"] and all(old.get(key) == value for key, value in given.items()):
        print(f"{name}: kept from {path}; --only {name} measures it again", flush=True)
        return old
    print(f"{name}: measuring", flush=True)
    record = {"measure": name, **given, **dataclasses.asdict(compute())}
    atomic_write_text(path, json.dumps(record, indent=1) + "\n")
    return json.loads(json.dumps(record))


def read(path: Path) -> dict[str, Any] | None:
    """A record, or None if there is no such file.

    Raises:
      UserError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_bytes())
        if not isinstance(record["rows"], list):
            raise TypeError("'rows' is not a list")
        return record
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} is damaged, remove it to measure anew: {type(e).__name__} {e}.") from e


def table(records: Sequence[dict[str, Any]]) -> str:
    """All rows in Markdown; what was skipped comes below."""
    lines = ["| measure | what | ratio: median (quartiles) | target | met? |", "|---|---|---|---|---|"]
    notes = []
    for record in records:
        quick = record["settings"]["quick"]
        for row in record["rows"]:
            lines.append(_line(record["measure"], row, quick))
        if record["skipped"]:
            notes.append(f"{record['measure']}: {record['skipped']}")
        if quick:
            notes.append(f"{record['measure']}: tiny sizes (--quick), the figures mean nothing.")
    if len({record["source"] for record in records}) > 1:
        names = ", ".join(record["measure"] for record in records if record["source"] != records[0]["source"])
        notes.append(f"Not all of one state of the source: {names} differ from {records[0]['measure']}.")
    machines = sorted({f"{r['cpu']}, {r['cores']} cores, jax {r['versions']['jax']}" for r in records})
    return "\n".join([*lines, "", *machines, *(f"\n{note}" for note in notes)]) + "\n"


def _line(name: str, row: dict[str, Any], quick: bool) -> str:
    ratio, target = Ratio(**row["ratio"]), row["target"]
    if target is None:
        return f"| {name} | {row['what']} | {ratio} | | |"
    met = "not judged" if quick else "yes" if ratio.median <= target else "no"
    return f"| {name} | {row['what']} | {ratio} | ≤ {target:.2f} | {met} |"
