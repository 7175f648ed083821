"""A model in a few lines, for whoever looks at one in a notebook or at a prompt."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import jax

from kind_jax import partition
from kind_jax.classes import describe

if TYPE_CHECKING:
    from kind_jax.deploy.bundle import Bundle
    from kind_jax.deploy.record import Composition


def text_of(bundle: Bundle) -> str:
    """Origin, classes aboard, sizes, step; three lines, four for a composed model."""
    sizes = _sizes(bundle)
    parts = [f"{name} {size:,}" for name, size in sizes.items()]
    line = f"{sum(sizes.values()):,} parameters: {', '.join(parts)}"
    if sizes.get(partition.TAILORS):
        line += f" (tailors of {len(bundle.groups)} groups)"
    lines = [f"<Bundle of {_headline(bundle)}", f"  {_classes(bundle)}", f"  {line}"]
    if bundle.composition is not None:
        lines.append(f"  {_composed(bundle.composition)}")
    return "\n".join(lines) + ">"


def html_of(bundle: Bundle) -> str:
    """The same for a notebook, with a table of the collections; names are escaped, as artifacts may be anybody's."""
    sizes, total = _sizes(bundle), sum(_sizes(bundle).values())
    lines = [f"Bundle of {_headline(bundle)}", _classes(bundle)]
    if bundle.composition is not None:
        lines.append(_composed(bundle.composition))
    rows = [(name, f"{size:,}", f"{size / total:.0%}") for name, size in sizes.items()]
    rows.append(("all", f"{total:,}", "100%"))
    cells = "".join(
        f"<tr><td style='text-align:left'>{html.escape(name)}</td><td>{size}</td><td>{share}</td></tr>"
        for name, size, share in rows
    )
    head = "<tr><th style='text-align:left'>collection</th><th>parameters</th><th>share</th></tr>"
    return f"<div>{'<br>'.join(map(html.escape, lines))}</div><table>{head}{cells}</table>"


def _sizes(bundle: Bundle) -> dict[str, int]:
    """Parameters of each collection that has any."""
    sizes = {name: sum(a.size for a in jax.tree.leaves(tree)) for name, tree in bundle.collections.items()}
    return {name: size for name, size in sizes.items() if size}


def _headline(bundle: Bundle) -> str:
    return f"{str(bundle.origin)!r}: step {bundle.step}, {bundle.weights} weights"


def _classes(bundle: Bundle) -> str:
    served = bundle.served
    classes = describe(served, bundle.class_names) if served else "none"
    return f"{len(served)} of {len(bundle.class_names)} classes: {classes}"


def _composed(record: Composition) -> str:
    budget = {n: getattr(record, n) for n in ("max_params", "max_flops", "rank")}
    limits = [f"{name} {value:,}" for name, value in budget.items() if value is not None]
    return f"composed ({', '.join(limits) or 'without a budget'}), {record.energy:.1%} of the components' energy"
