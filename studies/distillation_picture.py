"""Tables of the study of distillation, from its record."""

from __future__ import annotations

from typing import Any

from common import markdown, spread


def tables(record: dict[str, Any]) -> str:
    """Test top-1 of every route, in per cent."""
    found: dict[tuple[str, ...], list[float]] = {}
    for name, run in record["results"].items():
        if isinstance(run, dict) and "test" in run and "method" in run:
            route = name.partition(": ")[2]
            found.setdefault((run["set"], f"{100 * run['share']:g} %", route), []).append(100 * run["test"]["top1"])
    rows = [(*key, spread(values, 1)) for key, values in sorted(found.items())]
    return markdown([("set", "labels", "route", "test top-1, %"), *rows])
