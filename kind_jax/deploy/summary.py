"""A model in a few lines, for whoever looks at one in a notebook or at a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from kind_jax import partition
from kind_jax.classes import describe

if TYPE_CHECKING:
    from kind_jax.deploy.bundle import Bundle


def text_of(bundle: Bundle) -> str:
    """Origin, classes aboard, sizes, step; three lines, four for a composed model."""
    served, known = bundle.served, len(bundle.class_names)
    classes = describe(served, bundle.class_names) if served else "none"
    sizes = {name: sum(a.size for a in jax.tree.leaves(tree)) for name, tree in bundle.collections.items()}
    parts = [f"{name} {size:,}" for name, size in sizes.items() if size]
    lines = [
        f"<Bundle of {str(bundle.origin)!r}: step {bundle.step}, {bundle.weights} weights",
        f"  {len(served)} of {known} classes: {classes}",
        f"  {sum(sizes.values()):,} parameters: {', '.join(parts)} (tailors of {len(bundle.groups)} groups)"
        if sizes.get(partition.TAILORS)
        else f"  {sum(sizes.values()):,} parameters: {', '.join(parts)}",
    ]
    if (record := bundle.composition) is not None:
        budget = {n: getattr(record, n) for n in ("max_params", "max_flops", "rank")}
        limits = [f"{name} {value:,}" for name, value in budget.items() if value is not None]
        kept = f"{record.energy:.1%} of the components' energy"
        lines.append(f"  composed ({', '.join(limits) or 'without a budget'}), {kept}")
    return "\n".join(lines) + ">"
